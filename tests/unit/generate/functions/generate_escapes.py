"""Functions that try to leave something behind. What runs away ends by itself after a while, should it get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LONGEST_S = 20.0


def either(request):
    return globals()[request["call"]](request)


def detach(mark):
    """Start a process that has nothing to do with us any more: twice forked, a session of its own, no environment."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(mark).write_text(str(os.getpid()))
            os.chdir("/")
            os.closerange(0, 256)
            os.execve("/bin/sleep", ["sleep", str(LONGEST_S)], {})
        os._exit(0)
    os.wait()
    while not Path(mark).exists() or not Path(mark).read_text():
        time.sleep(0.005)


def run_away(width):
    """Start processes that fork, leave their session and end, without a pause."""
    end = time.monotonic() + LONGEST_S
    for _ in range(width):
        if os.fork() == 0:
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
                os.setsid()
            os._exit(0)


def leaves_detached(request):
    detach(request["mark"])
    return {"id": "done", "pid": os.getpid()}


def hangs_with_detached(request):
    detach(request["mark"])
    time.sleep(LONGEST_S)


def crashes_with_detached(request):
    detach(request["mark"])
    os._exit(3)


def leaves_runaway(request):
    run_away(3)
    return {"id": "done", "pid": os.getpid()}


def hangs_with_runaway(request):
    run_away(3)
    time.sleep(LONGEST_S)


def crashes_with_runaway(request):
    run_away(3)
    os._exit(3)


def watches_each_other(request):
    """Start processes that start each other again when one is killed."""

    def stand_by(end):
        while time.monotonic() < end:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                continue
            os.waitpid(pid, 0)

    if os.fork() == 0:
        stand_by(time.monotonic() + 2)
        os._exit(0)
    time.sleep(LONGEST_S)


def stops_its_guard(request):
    """Keep the process that is to kill us from running."""
    guard = os.getppid()
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + LONGEST_S
        while time.monotonic() < end:
            os.kill(guard, signal.SIGSTOP)
        os._exit(0)
    time.sleep(LONGEST_S)


def shell(request):
    """Use sessions and groups as tools do."""
    code = "import os; print(os.getsid(0) == os.getpid())"
    made = subprocess.run([sys.executable, "-c", code], start_new_session=True, capture_output=True, check=True)
    return {"id": made.stdout.decode().strip(), "pid": os.getpid()}


def pid(request):
    return {"pid": os.getpid(), "guard": os.getppid()}
