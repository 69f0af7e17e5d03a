"""Functions as users write them, good and bad; loaded in child processes by the tests beside it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import ctypes
import datetime as dt
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMPTY = {"type": "Feature", "links": [], "assets": {}, "geometry": None}


def item(request, **options):
    return {**EMPTY, "id": request["id"], "properties": dict(options)}


def pystac_item(request):
    import pystac  # noqa: PLC0415 - slow, and needed here only

    return pystac.Item(request["id"], None, None, dt.datetime(2020, 1, 2, tzinfo=dt.UTC), {})


def items(request):
    for number in range(request["count"]):
        yield {"id": f"{request['id']}-{number}"}


def collection_of_items(request):
    return {"type": "FeatureCollection", "features": list(items(request))}


def no_items(request):
    return []


async def async_item(request):
    await asyncio.sleep(0)
    return item(request)


async def async_generator(request):
    for number in range(request["count"]):
        await asyncio.sleep(0)
        yield {"id": f"{request['id']}-{number}"}


async def async_list(request):
    return list(items(request))


async def same_loop(request):
    return {"loop": id(asyncio.get_running_loop())}


def pid(request):
    return {"pid": os.getpid()}


def hang(request):
    marked(request)
    sys.stdout.write("about to hang\n")
    time.sleep(600)


def either(request):
    """Do what the request says, so that one pool meets good and bad jobs."""
    return globals()[request["call"]](request)


def meet(request):
    """Return once another job runs at the same time, in another process."""
    marked(request)
    other = Path(request["other"])
    while not other.exists():
        time.sleep(0.005)
    return {"pid": os.getpid()}


def marked(request):
    if "mark" in request:
        temporary = Path(request["mark"] + ".new")
        temporary.write_text(str(os.getpid()))
        temporary.rename(request["mark"])


def exits(request):
    sys.stderr.write("goodbye\n")
    os._exit(1)


def system_exit(request):
    sys.exit("not today")


def kills_itself(request):
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(request):
    ctypes.string_at(0)


def hog(request):
    return [bytearray(1 << 28) for _ in range(40)]


def prints_binary(request):
    os.write(1, b"\x00\xff\xfe" * 100_000)
    sys.stderr.buffer.write(b"\x80" * 100_000)
    return item(request)


def closes_output(request):
    os.close(1)
    os.close(2)
    os.close(0)
    return item(request)


def closes_everything(request):
    os.closerange(3, 1000)
    return item(request)


def writes_to_every_descriptor(request):
    for fd in range(3, 4096):
        with contextlib.suppress(OSError):
            os.write(fd, b"\xff" * 64)
    return item(request)


def raises(request):
    raise ValueError(f"cannot read {request['id']}")


def raises_what_it_is_told(request):
    cause = getattr(builtins, request["cause"])() if "cause" in request else None
    error = getattr(builtins, request["error"])("as told")
    for name, value in request.get("attributes", {}).items():
        setattr(error, name, value)
    raise error from cause


def raises_odd_text(request):
    raise ValueError("caf\udce9.tif")


def raises_from_itself(request):
    error = ValueError("as told")
    raise error from error


def raises_with_broken_text(request):
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    raise BrokenError


def returns_none(request):
    return None


def returns_text(request):
    return "item.json"


def returns_numbers(request):
    return [1, 2]


def returns_collection_of_numbers(request):
    return {"type": "FeatureCollection", "features": [1, 2]}


def returns_object_in_item(request):
    return {"id": "x", "properties": {"where": [1, object()]}}


def returns_numpy(request):
    import numpy as np  # noqa: PLC0415 - as above

    return {
        "float": np.float32(0.5),
        "integer": np.int64(7),
        "array": np.arange(6).reshape(2, 3)[:, ::2],
        "when": np.datetime64("2020-01-02T03:04:05", "ns"),
        "naive": dt.datetime(2020, 1, 2),  # noqa: DTZ001 - users forget the zone
        "nan": float("nan"),
    }


def endless(request):
    while True:
        yield {"id": "x" * 1000}


def leaves_grandchild(request):
    process = subprocess.Popen(["sleep", "600"])
    return {"pid": process.pid, "parent": os.getpid()}


def hangs_with_grandchild(request):
    process = subprocess.Popen(["sleep", "600"])
    Path(request["mark"]).write_text(str(process.pid))
    process.wait()


def runs_away(request):
    Path(request["mark"]).write_text(str(os.getpid()))
    for _ in range(4):
        if os.fork() == 0:
            while os.fork() == 0:  # the parent ends: always another process, and never for long
                time.sleep(0.005)
            os._exit(0)
    time.sleep(600)


def crashes_with_grandchild(request):
    for fd in range(3, 4096):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's signature
    process = subprocess.Popen(["sleep", "600"], close_fds=False)
    Path(request["mark"]).write_text(str(process.pid))
    os._exit(3)


def forks(request):
    os.fork()
    return {"id": "one"}


def environment(request):
    return {"names": sorted(os.environ), "tmpdir": os.environ["TMPDIR"]}


def raises_environment(request):
    raise ValueError("x" * request["beside"] + repr(dict(os.environ)))


def prints_environment_and_dies(request):
    os.write(1, (repr(dict(os.environ)) + os.environ["EARTHDATA_TOKEN"] + "x" * request["beside"]).encode())
    os._exit(1)


def folder(request):
    found = sorted(path.name for path in Path.cwd().iterdir())
    Path("left.txt").write_text("x")
    Path("left").mkdir()
    with tempfile.NamedTemporaryFile(delete=False) as temporary:
        pass
    here = str(Path.cwd())
    os.chdir("/")
    return {"found": found, "folder": here, "temporary": str(Path(temporary.name).parent)}


def inputs(request):
    return {"stdin": os.read(0, 10).decode(), "session": os.getsid(0) == os.getpid()}


def modules(request):
    there = [name for name in ("orjson", "stacworker", "pystac") if importlib.util.find_spec(name)]
    return {"prefix": sys.prefix, "there": there, "when": dt.datetime(2020, 1, 2, tzinfo=dt.UTC)}


NOT_A_FUNCTION = {}
