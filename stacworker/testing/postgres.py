"""A throw-away PostgreSQL with PostGIS and pgstac: for tests, benchmarks and the demo.

The cluster lives in a temporary folder, listens on 127.0.0.1 and on a socket in that folder, lets
everybody on this machine in, and is gone when its context ends, or when this process does, however it
ends. It trades durability for speed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool
from pypgstac.db import PgstacDB
from pypgstac.migrate import Migrate

from stacworker.errors import ConfigError
from stacworker.testing.postgres_server import find_server

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_SOCKET_PATH_MAX = 90  # a Unix socket's path may have 107 bytes, ".s.PGSQL.65535" included

# Its standard input is a pipe that only we hold, and that closes when we end.
_GUARD = 'read _; kill -INT "$1"; rm -rf "$2"'

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10min",
    "checkpoint_timeout": "30min",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """A PostgreSQL cluster of its own; a context manager.

    Raises `ConfigError` when the server programs or PostGIS are not installed (it says what to
    install), and when the server does not start (with the end of its log).
    """

    superuser = "postgres"

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        """Put `settings` over those of the server that are chosen here for speed."""
        self._settings = {**_SETTINGS, **(settings or {})}
        self.port = 0
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._templates: dict[str, str] = {}

    def __enter__(self) -> Self:
        bindir = find_server()
        user = _unprivileged_user()
        try:
            self._folder = _temporary_folder(user)
            self._initialise(bindir, user)
            self._start(bindir, user)
            self._guard_it(user)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The folder with the data and the server's socket and log."""
        if self._folder is None:
            raise RuntimeError("the cluster is not running")
        return self._folder

    def dsn(self, database: str = "postgres", *, user: str = superuser) -> str:
        """Return the URL of a database; no password is needed."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run SQL (one or more statements without parameters) as the superuser, outside a transaction."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_database(self, *, template: str = "template1") -> str:
        """Create a database with a new name and return the name."""
        self._databases += 1
        name = f"scratch_{self._databases}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(create)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def migrate(self, database: str, version: str | None = None) -> None:
        """Bring a database to a version of pgstac (None: the newest that pypgstac has)."""
        with ConnectionPool(self.dsn(database), min_size=0, max_size=1, open=True) as pool:
            db = PgstacDB(pool=pool)
            try:
                Migrate(db).run_migration(toversion=version)
            finally:
                db.disconnect()

    def clone(self, version: str) -> str:
        """Create a database with an empty pgstac of a version, and return its name.

        The first call for a version makes a template, the others copy it (about 50 ms).
        """
        if version not in self._templates:
            template = self.create_database()
            self.migrate(template, version)
            self._templates[version] = template
        return self.create_database(template=self._templates[version])

    @contextmanager
    def scratch(self, version: str) -> Iterator[str]:
        """Lend a database with an empty pgstac for the time of a `with` block."""
        name = self.clone(version)
        try:
            yield name
        finally:
            self.drop_database(name)

    def crash(self) -> None:
        """Kill the server as a crash would (SIGKILL): what it has not committed is gone."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def restart(self) -> None:
        """Start the server again, on its port and with its data, after a crash.

        Raises `ConfigError` when it does not start.
        """
        user = _unprivileged_user()
        self._dismiss_guard()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._starts(find_server(), user):
            # Processes of the crashed server may still hold its shared memory.
            if time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise ConfigError(f"PostgreSQL did not start again; the end of its log: {log.strip()[-1000:]}")
            time.sleep(0.1)
        self._guard_it(user)

    def stop(self) -> None:
        """Stop the server and remove its folder; harmless when done before."""
        self._dismiss_guard()
        server, self._server = self._server, None
        if server is not None:
            _stop(server)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _server_pid(self) -> int:
        if self._server is None:
            raise RuntimeError("the cluster is not running")
        return self._server.pid

    def _guard_it(self, user: pwd.struct_passwd | None) -> None:
        self._guard = subprocess.Popen(  # noqa: S603 - a constant
            ["/bin/sh", "-c", _GUARD, "guard", str(self._server_pid), str(self._folder)],
            stdin=subprocess.PIPE,
            process_group=0,
            **_run_as(user),
        )

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate()

    def _initialise(self, bindir: Path, user: pwd.struct_passwd | None) -> None:
        options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(  # noqa: S603 - the path comes from find_server
            [bindir / "initdb", *options, f"--username={self.superuser}", f"--pgdata={self.folder / 'data'}"],
            cwd=self.folder,
            capture_output=True,
            check=False,
            **_run_as(user),
        )
        if made.returncode != 0:
            raise ConfigError(f"initdb failed: {made.stderr.decode(errors='replace').strip()[-500:]}")

    def _start(self, bindir: Path, user: pwd.struct_passwd | None) -> None:
        for tries_left in (2, 1, 0):
            self.port = _free_port()
            if self._starts(bindir, user):
                return
            log = (self.folder / "log").read_text(errors="replace")
            # Somebody else may have taken the port between our look and the server's.
            if tries_left == 0 or "could not bind" not in log:
                raise ConfigError(f"PostgreSQL did not start; the end of its log: {log.strip()[-1000:]}")

    def _starts(self, bindir: Path, user: pwd.struct_passwd | None) -> bool:
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("wb") as log:
            self._server = subprocess.Popen(  # noqa: S603 - the path comes from find_server
                [bindir / "postgres", "-D", self.folder / "data", *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for whoever uses the server; it is stopped after them.
                process_group=0,
                **_run_as(user),
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._server.poll() is None:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        _stop(self._server)
        return False


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return whom to run the server as: PostgreSQL refuses to run as root. None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigError("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def _run_as(user: pwd.struct_passwd | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


def _temporary_folder(user: pwd.struct_passwd | None) -> Path:
    base = tempfile.gettempdir()
    if len(base) > _SOCKET_PATH_MAX - 30:
        base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it
    folder = Path(tempfile.mkdtemp(prefix="stacworker-pg-", dir=base))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _stop(server: subprocess.Popen[bytes]) -> None:
    # Fast shutdown, then an immediate one, then none of its choice.
    for with_signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if server.poll() is not None:
            break
        server.send_signal(with_signal)
        try:
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    server.wait()
