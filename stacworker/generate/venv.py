"""Virtual environments of generators: made once with uv, kept in a folder, found again by what they hold.

An environment's folder is named after a digest of its requirements and its Python. A file that is written
last says that it is whole; whatever lacks it was cut off and is made anew. A lock (flock) lets several
processes, such as replicas that share the folder, wait for one that is at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from stacworker.errors import ConfigError
from stacworker.generate.environment import scrubbed
from stacworker.generate.package_index import index_variables

_FORMAT = 1
_WHOLE = "stacworker.json"
_REQUIREMENTS = "requirements.txt"
_INSTALL_TIMEOUT_S = 1800.0
_LOOK_AGAIN_S = 0.2
_TOLD_LINES = 12
_KILLED_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment is to hold: requirements, and a requirements file.

    A file with hashes pins all there is: then nothing else is installed, and the requirements must be in it.
    """

    requirements: tuple[str, ...] = ()
    file: Path | None = None

    def is_installed_here(self) -> bool:
        """Say whether the environment of this process has all of it, as required."""
        return self.file is None and all(_is_installed(text) and "@" not in text for text in self.requirements)

    def text(self) -> str:
        """Return all of it as one requirements file; raises ConfigError when the file cannot be read."""
        try:
            own = self.file.read_text("utf-8") if self.file is not None else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"requirements cannot be read: {self.file}: {error}") from error
        return own if _is_lock(own) else "\n".join([own, *self.requirements, ""])

    def missing_in(self, packages: Mapping[str, str]) -> list[str]:
        """Return the requirements (of those given one by one) that these packages, name to version, do not meet."""
        versions: dict[str, str] = {canonicalize_name(name): version for name, version in packages.items()}
        return [text for text in self.requirements if not _is_met(text, versions.get)]


@dataclass(frozen=True, slots=True)
class Venv:
    """An environment that is there: its interpreter, and the versions of what is installed, by name."""

    folder: Path
    python: str
    packages: Mapping[str, str]

    @property
    def interpreter(self) -> str:
        """The path of its Python."""
        return str(self.folder / "bin" / "python")


class Venvs:
    """The folder with the environments.

    uv sees the part of `environ` that generators' children may see, and what tells it of package indexes.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ

    async def get(self, wanted: Wanted, *, install: bool = True) -> Venv:
        """Return the environment, made first where it is not there.

        Raises ConfigError with uv's own words when it cannot be made, or, without `install`, when it is
        missing. Cancelled or killed on the way, it leaves nothing that would be taken for an environment.
        """
        text = wanted.text()
        folder = self._folder / _digest(text)
        if (found := _whole(folder)) is not None:
            return found
        if not install:
            raise ConfigError(f"its environment {folder} is missing: make it with `stacworker pipelines install`")
        uv = find_uv()
        async with self._locked(folder):
            if (found := _whole(folder)) is None:  # nobody else has made it meanwhile
                try:
                    found = await self._make(uv, folder, wanted, text)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
        return found

    async def lock(self, wanted: Wanted) -> str:
        """Return a requirements file that pins all of it, with what it needs in turn, for any platform.

        Raises ConfigError with uv's own words when there is no such set.
        """
        self._made_folder()
        version = ".".join(platform.python_version_tuple()[:2])
        options = (
            "--universal",
            "--python-version",
            version,
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-header",
        )
        return await self._run(find_uv(), "pip", "compile", "--quiet", *options, "-", given=wanted.text())

    async def _make(self, uv: str, folder: Path, wanted: Wanted, text: str) -> Venv:
        _log.info("environment.making", folder=str(folder))
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        base = getattr(sys, "_base_executable", sys.executable)
        await self._run(uv, "venv", "--quiet", "--no-project", "--python", base, str(folder))
        (folder / _REQUIREMENTS).write_text(text, "utf-8")
        target = ("--quiet", "--python", str(folder / "bin" / "python"))
        exactly = ("--require-hashes",) if _is_lock(text) else ()
        await self._run(uv, "pip", "install", *target, *exactly, "--requirement", str(folder / _REQUIREMENTS))
        listed = orjson.loads(await self._run(uv, "pip", "list", *target, "--format", "json"))
        packages = {each["name"]: each["version"] for each in listed}
        if missing := wanted.missing_in(packages):
            raise ConfigError(
                f"{wanted.file} does not pin {', '.join(missing)}: run `stacworker pipelines lock`, or drop the file"
            )
        told = {"python": platform.python_version(), "packages": packages}
        await asyncio.to_thread(_write_whole, folder / _WHOLE, orjson.dumps(told))
        _log.info("environment.made", folder=str(folder), packages=len(packages))
        return Venv(folder, platform.python_version(), packages)

    @contextlib.asynccontextmanager
    async def _locked(self, folder: Path) -> AsyncIterator[None]:
        self._made_folder()
        with open(folder.with_suffix(".lock"), "w", encoding="ascii") as file:  # noqa: ASYNC230, PTH123 - empty, local
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(_LOOK_AGAIN_S)
                else:
                    break
            yield

    def _made_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"environments.folder: {self._folder} cannot be made: {error.strerror}; name one that can be written"
            ) from error

    async def _run(self, uv: str, *arguments: str, given: str = "") -> str:
        """Return what uv prints; raises ConfigError with its last words when it fails."""
        environ = {
            **scrubbed(self._environ, also=[name for name in self._environ if name.startswith("UV_")]),
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
            # Not hard links to uv's cache: whatever writes in one environment would write in all.
            "UV_LINK_MODE": "copy",
            **index_variables(self._environ),
        }
        process = await self._started(uv, arguments, environ)
        try:
            async with asyncio.timeout(_INSTALL_TIMEOUT_S):
                out, said = await process.communicate(given.encode())
        except TimeoutError:
            raise ConfigError(f"uv {arguments[0]} was not done after {_INSTALL_TIMEOUT_S:g} s") from None
        finally:
            await _end(process)
        if process.returncode:
            lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
            words = " ".join(" ".join(lines[-_TOLD_LINES:]).split())
            raise ConfigError(f"uv {' '.join(arguments[:2])} failed: {words or f'exit code {process.returncode}'}")
        return out.decode("utf-8", "replace")

    async def _started(
        self, uv: str, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                uv,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environ,
                cwd=self._folder,
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _end(await starting)  # asyncio itself would end uv alone, and not what that has started already
            raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a process and all that it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILLED_S):
            await process.wait()


def find_uv() -> str:
    """Return the path of uv: the Python package's, else the one on the PATH; raises ConfigError without one."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - an extra
    except ImportError:
        found = shutil.which("uv")
    else:
        with contextlib.suppress(FileNotFoundError):
            return str(find_uv_bin())
        found = shutil.which("uv")
    if found is None:
        raise ConfigError(
            "uv, which makes generators' environments, is not installed: pip install 'stacworker[environments]'; or "
            "install what the generator needs beside stacworker and set environment: shared"
        )
    return found


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return where environments are kept when settings do not say: in the user's cache folder."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "/tmp", ".cache"))  # noqa: S108 - a cache
    return Path(cache, "stacworker", "environments")


def check_requirements(where: str, texts: Iterable[str]) -> None:
    """Raise ConfigError with a line for each text that is no requirement, such as `numpy>=2`."""
    problems = []
    for text in texts:
        try:
            Requirement(text)
        except InvalidRequirement as error:
            problems.append(f"{where}: {text!r}: {error}")
    if problems:
        raise ConfigError(*problems)


def _digest(text: str) -> str:
    """Return the name of the environment that holds this."""
    lines = sorted({line.strip() for line in text.splitlines()} - {""})
    python = (platform.python_implementation(), platform.python_version(), platform.machine(), sys.base_prefix)
    return hashlib.sha256(orjson.dumps([_FORMAT, python, lines])).hexdigest()[:20]


def _whole(folder: Path) -> Venv | None:
    """Return the environment in a folder when it is whole and its interpreter still there."""
    try:
        told = orjson.loads((folder / _WHOLE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    venv = Venv(folder, told["python"], told["packages"])
    return venv if os.access(venv.interpreter, os.X_OK) else None


def _write_whole(path: Path, data: bytes) -> None:
    """Write the file that makes an environment count, in one step."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _is_lock(text: str) -> bool:
    return "--hash=" in text


def _is_installed(text: str) -> bool:
    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return _is_met(text, version)


def _is_met(text: str, version_of: Callable[[str], str | None]) -> bool:
    """Say whether a requirement is met by what is installed, or does not apply here."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return False
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    version = version_of(canonicalize_name(requirement.name))
    return version is not None and (
        requirement.url is not None or requirement.specifier.contains(version, prereleases=True)
    )
