"""Where PostgreSQL's server programs are installed, and what to install where they are not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from stacworker.errors import ConfigError


def find_server() -> Path:
    """Return the folder of initdb and postgres; the newest version that has PostGIS.

    Raises `ConfigError` that says what to install.
    """
    found = [folder for folder in _candidates() if all((folder / name).exists() for name in ("initdb", "postgres"))]
    if not found:
        raise ConfigError(
            "PostgreSQL's server programs were not found (looked at pg_config, PATH and /usr/lib/postgresql). "
            "On Debian or Ubuntu: apt-get install -y postgresql postgresql-postgis"
        )
    for folder in found:
        if (_share_folder(folder) / "extension" / "postgis.control").exists():
            return folder
    version = found[0].parent.name
    package = f"postgresql-{version}-postgis-3" if version.isdigit() else "postgresql-postgis"
    raise ConfigError(
        f"PostgreSQL was found in {found[0]}, but PostGIS is not installed for it. "
        f"On Debian or Ubuntu: apt-get install -y {package}"
    )


def _candidates() -> Iterator[Path]:
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda folder: _number(folder.parent.name), reverse=True)
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        yield Path(_output(pg_config, "--bindir"))
    initdb = shutil.which("initdb")
    if initdb is not None:
        yield Path(initdb).resolve().parent


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        return 0.0


def _share_folder(bindir: Path) -> Path:
    pg_config = bindir / "pg_config"
    if pg_config.exists():
        return Path(_output(str(pg_config), "--sharedir"))
    # Debian puts pg_config in a package of its own.
    return Path("/usr/share/postgresql") / bindir.parent.name


def _output(program: str, argument: str) -> str:
    done = subprocess.run([program, argument], capture_output=True, check=False, text=True)  # noqa: S603 - pg_config
    return done.stdout.strip()
