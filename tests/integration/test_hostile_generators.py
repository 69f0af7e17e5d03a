"""Generators that do their worst: each costs its own job, and nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from pathlib import Path

from stacworker.testing.localstack import LocalStack
from tests.integration.aws import MakeQueue, Queue
from tests.integration.worker import Worker, settings_for

TIMEOUT_S = 3
NEIGHBOURS = 300
EXECUTOR_THREADS = 4 + (os.cpu_count() or 1)
"""As many may asyncio's own executor start, which keeps them."""

# Whatever is started here ends by itself after a while and is bounded in number, should nobody end it.
MODULE = """
import ctypes, faulthandler, os, re, shutil, signal, socket, subprocess, sys, threading, time
LONGEST_S = 20.0

def create_items(request):
    result = globals()[request["path"]](request)
    return {"id": request["id"]} if result is None else result

def neighbour(request):
    return {"id": request["id"]}

# -- that never end

def loops(request):
    print("round and round", flush=True)
    while True:
        pass

def ignores_signals(request):
    for number in range(1, 65):
        try:
            signal.signal(number, lambda *_: print("not me"))
        except (OSError, ValueError):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        time.sleep(1)

def backtracks(request):
    re.match(r"(a+)+$", "a" * 64 + "b")

def starts_threads(request):
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(3600,)).start()

def waits_for_threads(request):
    thread = threading.Thread(target=threading.Event().wait)
    thread.start()
    thread.join()

def yields_for_ever(request):
    while True:
        yield {"id": "x" * 10_000_000}

# -- that take much

def hogs(request):
    return bytearray(2 << 30)

def hogs_with_numpy(request):
    import numpy
    return numpy.ones((2 << 30) // 8)

def hogs_in_pieces(request):
    return [bytearray(1 << 20) for _ in range(2048)]

def returns_a_huge_item(request):
    return {"id": "x" * (1 << 30)}

def fills_its_folder(request):
    for number in range(20):
        os.makedirs(f"deep/{number}", exist_ok=True)
        with open(f"deep/{number}/file", "wb") as file:
            file.write(bytes(10_000_000))

def multiplies(request, leave=lambda: None):
    end = time.monotonic() + LONGEST_S
    for _ in range(8):
        os.fork()
        leave()
    while time.monotonic() < end:
        time.sleep(0.1)
    os._exit(0)

def multiplies_in_sessions(request):
    def leave():
        try:
            os.setsid()
        except PermissionError:
            pass  # leads one already
    multiplies(request, leave)

def multiplies_and_crashes(request):
    if os.fork() == 0:
        multiplies_in_sessions(request)
    time.sleep(0.5)
    os._exit(4)

def runs_away(request):
    end = time.monotonic() + LONGEST_S
    for _ in range(3):
        if os.fork() == 0:
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
                os.setsid()
            os._exit(0)

def leaves_a_daemon(request):
    subprocess.run(["sh", "-c", f"setsid nohup sleep {LONGEST_S} >/dev/null 2>&1 &"], check=True, env={})

# -- that die

def exits(request):
    print("so long", flush=True)
    os._exit(0)

def aborts(request):
    os.abort()

def faults(request):
    faulthandler.enable()
    ctypes.string_at(0)

def recurses(request):
    return recurses(request)

def imports_what_exits(request):
    import hostile_exit

def kills_its_group(request):
    os.killpg(0, signal.SIGKILL)

def kills_its_parent(request):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)

# -- that talk

def imports_what_prints(request):
    import hostile_print

def prints_much(request):
    for fd in (1, 2):
        for _ in range(50):
            left = memoryview(bytes(range(256)) * 4096)
            while left:
                left = left[os.write(fd, left):]

def prints_binary_and_exits(request):
    os.write(1, bytes(range(256)) * 1000)
    os.write(2, b"the\\x00end")
    os._exit(9)

def replaces_output(request):
    sys.stdout.close()
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None

def closes_everything(request):
    os.closerange(0, 4096)
    time.sleep(3600)

def sends_nonsense(request):
    for fd in _sockets():
        os.write(fd, b"\\x00\\x00\\x00\\x02{}")
    time.sleep(3600)

def sends_a_huge_frame(request):
    for fd in _sockets():
        os.write(fd, b"\\xff\\xff\\xff\\xff{}")
    time.sleep(3600)

def _sockets():
    return [fd for fd in range(3, 100) if _is_socket(fd)]

def _is_socket(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False

def removes_its_folder(request):
    folder = os.getcwd()
    os.chdir("/")
    shutil.rmtree(folder)

def besieges_the_port(request):
    kept = [socket.create_connection(("127.0.0.1", request["port"])) for _ in range(100)]
    for number, each in enumerate(kept):
        each.sendall(b"\\xff" * 100 if number % 2 else b"GET /metrics HTTP/1.1\\r\\nHost")
    globals()["kept"] = kept
"""

TIMED_OUT = rf"its process was killed after {TIMEOUT_S} s while working on message body"
NO_MEMORY = r"ran out of memory \(memory_mb is 1024\)"
SILENT = r"its process closed its connection, or sent what is not in the protocol while working on message body"
DEAD = {
    "loops": ("generator_timeout", TIMED_OUT + "; its last output: round and round$"),
    "ignores_signals": ("generator_timeout", TIMED_OUT + ".*not me"),
    "backtracks": ("generator_timeout", TIMED_OUT),
    "waits_for_threads": ("generator_timeout", TIMED_OUT),
    "yields_for_ever": ("generator_error", "the items of this request are larger than 256000000 bytes"),
    "hogs": ("generator_memory", NO_MEMORY),
    "hogs_with_numpy": ("generator_memory", NO_MEMORY),
    "hogs_in_pieces": ("generator_memory", NO_MEMORY),
    "returns_a_huge_item": ("generator_memory", NO_MEMORY),
    "multiplies": ("generator_timeout", TIMED_OUT),
    "multiplies_in_sessions": ("generator_timeout", TIMED_OUT),
    "multiplies_and_crashes": ("generator_crashed", "exited with status 4"),
    "exits": ("generator_crashed", "exited with status 0 while .*; its last output: so long$"),
    "aborts": ("generator_crashed", "was killed by SIGABRT"),
    "faults": ("generator_crashed", "was killed by SIGSEGV while .*; its last output: .*line [0-9]+ in faults"),
    "recurses": ("generator_error", "RecursionError: maximum recursion depth exceeded"),
    "imports_what_exits": ("generator_crashed", "exited with status 7 while .*; its last output: no licence$"),
    "kills_its_group": ("generator_crashed", r"was killed by SIGKILL \(out of memory\?\)"),
    "kills_its_parent": ("generator_crashed", "was killed by SIGKILL"),
    "prints_binary_and_exits": ("generator_crashed", "exited with status 9 while .*; its last output: .*the\ufffdend$"),
    "closes_everything": ("generator_crashed", SILENT),
    "sends_nonsense": ("generator_crashed", SILENT),
    "sends_a_huge_frame": ("generator_crashed", SILENT),
}
HARMLESS = {
    "leaves_a_daemon",
    "starts_threads",
    "fills_its_folder",
    "runs_away",
    "imports_what_prints",
    "prints_much",
    "replaces_output",
    "removes_its_folder",
    "besieges_the_port",
}


def below(pid: int) -> set[int]:
    """Return all processes below one, dead ones that nobody waited for included."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def held_by(pid: int) -> Counter[str]:
    """Count what a process has open, connections to others left out: those come and go."""
    local = {line.split()[6] for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]}
    found: Counter[str] = Counter()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        kind, _, number = str(fd.readlink()).partition(":")
        if kind != "socket" or number.strip("[]") in local:
            found[kind] += 1
    return found


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def folders_in(folder: Path) -> list[Path]:
    return [path for workspace in folder.glob("stacworker-children-*") for path in workspace.iterdir()]


async def until_idle(running: Worker, folder: Path) -> None:
    """Wait until no child is left, idle ones having ended, and nothing of them in the temporary folder."""
    await running.until(lambda: not below(running.pid) and not folders_in(folder))


async def arrived(target: Queue, expected: set[str], within_s: float) -> set[str]:
    """Take items from a queue until these have come; return the ids of all that came."""
    found: set[str] = set()
    deadline = time.monotonic() + within_s
    while not expected <= found and time.monotonic() < deadline:
        found |= {json.loads(message.body)["id"] for message in await target.drain(1, timeout_s=1)}
    return found


async def test_whatever_a_generator_does_it_costs_its_own_job(
    tmp_path: Path, localstack: LocalStack, queue: MakeQueue
) -> None:
    """Jobs that hang, hog, multiply, die, babble and break the protocol end with a reason that says so.

    Meanwhile every item of the generator beside it arrives, and the daemon answers. Afterwards no process, descriptor,
    thread or folder is there that was not before.
    """
    (tmp_path / "hostile_module.py").write_text(MODULE)
    (tmp_path / "hostile_exit.py").write_text("import os, sys\nsys.stderr.write('no licence\\n')\nos._exit(7)\n")
    (tmp_path / "hostile_print.py").write_text("import os\nprint('x' * 100_000)\nos.write(1, bytes(range(256)))\n")
    hostile, good = queue("hostile", max_receive_count=1), queue("good", max_receive_count=1)
    made, neighbours = queue("made"), queue("neighbours")
    settings = settings_for(
        "postgresql://u@127.0.0.1:1/d",
        localstack,
        {
            "name": "hostile", "type": "generate", "queue_url": hostile.url, "generator": "hostile",
            "output": f"sqs:{made.url}", "max_in_flight": 4,
        },
        {
            "name": "good", "type": "generate", "queue_url": good.url, "generator": "good",
            "output": f"sqs:{neighbours.url}",
        },
        generators={
            "hostile": {
                "type": "hostile_module:create_items", "processes": 2, "timeout_s": TIMEOUT_S, "idle_timeout_s": 1,
            },
            "good": {"type": "hostile_module:neighbour", "processes": 1, "idle_timeout_s": 1},
        },
    )  # fmt: skip
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = Worker(tmp_path, settings, {"PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)})
    try:
        await running.start()
        await until_idle(running, temporary)
        before, threads = held_by(running.pid), threads_of(running.pid)
        port = running.events("http.listening")[-1]["port"]
        names = [*DEAD, *HARMLESS]
        await hostile.send(*(json.dumps({"id": name, "path": name, "port": port}) for name in names))
        expected = {f"n{number}" for number in range(NEIGHBOURS)}
        for start in range(0, NEIGHBOURS, 100):
            await good.send(*(json.dumps({"id": f"n{start + n}", "path": "p"}) for n in range(100)))
        assert await arrived(neighbours, expected, within_s=60) == expected
        assert hostile.dead_letters is not None
        letters = await hostile.dead_letters.drain(expected=len(DEAD), timeout_s=90)
        told = {json.loads(letter.body)["id"]: letter.attributes for letter in letters}
        assert {name: told[name]["stacworker_error_class"] for name in told} == {name: DEAD[name][0] for name in DEAD}
        unclear = {
            name: told[name]["stacworker_reason"]
            for name, (_, reason) in DEAD.items()
            if not re.search(reason, told[name]["stacworker_reason"], re.DOTALL)
        }
        assert unclear == {}
        assert await arrived(made, HARMLESS, within_s=30) == HARMLESS
        await running.until(running.is_ready)
        outcomes = {"acked": NEIGHBOURS + len(HARMLESS), "dead_lettered": len(DEAD)}
        await running.until(lambda: running.outcomes() == outcomes)
        assert running.events("message.unexpected_error") == []
        assert running.events("generator.child_stuck") == []
        await until_idle(running, temporary)
        assert held_by(running.pid) == before
        assert threads_of(running.pid) <= threads + EXECUTOR_THREADS
        assert await running.stop() == 0
    finally:
        running.cleanup()
    assert list(temporary.iterdir()) == []
