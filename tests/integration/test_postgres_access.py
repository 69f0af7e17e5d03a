"""Ways into Postgres: every character in a name or password, and TLS that says whom it trusts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import structlog
import yaml
from psycopg import sql

from stacworker.aws import Aws
from stacworker.cli import main
from stacworker.cli.opening import CommandParts
from stacworker.database import ConnectArgs, Credentials, Database
from stacworker.errors import Unavailable
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.parts import secret_credentials
from stacworker.settings import DatabaseSettings, Settings
from stacworker.testing.localstack import LocalStack
from stacworker.testing.postgres import Postgres
from tests.integration.aws import MakeQueue
from tests.integration.strict_pg import StrictPostgres
from tests.integration.worker import settings_for

ODD = "hUnt@er:2/%?#[] \"ü'\\+&=;$~<>`|^{}!*(),é%41"
NAME = "od@d:/%?#[] \"ü'\\+&=;é"
LOGS_IN = "SELECT current_user || ' in ' || current_database()"


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Put logging back where a command has set it up."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_pg_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what this machine says about Postgres."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def odd(strict_postgres: StrictPostgres) -> StrictPostgres:
    """Make a role, its password and a database of odd characters, and a role that is let in with TLS only."""
    with psycopg.connect(strict_postgres.server.dsn(), autocommit=True) as admin:
        for role, password in ((NAME, ODD), ("tls_only", "plain")):
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            admin.execute(create)
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
    return strict_postgres


def encoded_dsn(odd: StrictPostgres, password: str = ODD) -> str:
    parts = [quote(part, safe="") for part in (NAME, password, NAME)]
    return f"postgresql://{parts[0]}:{parts[1]}@127.0.0.1:{odd.server.port}/{parts[2]}"


def variables(odd: StrictPostgres) -> dict[str, str]:
    found = {"PGHOST": "127.0.0.1", "PGUSER": NAME, "PGPASSWORD": ODD, "PGDATABASE": NAME}
    return {**found, "PGPORT": str(odd.server.port)}


async def logged_in(source: str | ConnectArgs | Credentials | None) -> str:
    async with Database(source) as database, database.transaction("asking") as connection:
        return str(await connection.fetchval(LOGS_IN))


async def as_libpq(settings: Settings) -> str:
    """Log in as `stacworker migrate --pgstac` does."""
    async with AsyncExitStack() as stack:
        parts = CommandParts(settings, Lifecycle(drain_timeout_s=0), Metrics(), stack, Aws(region="us-east-1"))
        arguments = await parts.libpq_arguments()
    with psycopg.connect(**arguments) as connection:
        row = connection.execute(LOGS_IN).fetchone()
        assert row is not None
        return str(row[0])


async def test_a_dsn_may_hold_every_character(odd: StrictPostgres) -> None:
    """Percent-encoded, in user, password and database; for loading and for migrating. The password counts."""
    settings = Settings(database=DatabaseSettings(dsn=encoded_dsn(odd)))
    assert await logged_in(encoded_dsn(odd)) == await as_libpq(settings) == f"{NAME} in {NAME}"
    with pytest.raises(Unavailable) as caught:
        await logged_in(encoded_dsn(odd, ODD[:-1]))
    assert caught.value.error_class == "access_denied"


async def test_variables_may_hold_every_character(odd: StrictPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, without any encoding."""
    for name, value in variables(odd).items():
        monkeypatch.setenv(name, value)
    assert await logged_in(None) == await as_libpq(Settings()) == f"{NAME} in {NAME}"


async def test_a_secret_may_hold_every_character(odd: StrictPostgres) -> None:
    """As they are, in JSON; with TLS as the PG* variables say."""

    class Secrets:
        async def get_secret_value(self, **_: str) -> dict[str, str]:
            secret = {"username": NAME, "password": ODD, "host": "127.0.0.1", "port": odd.server.port, "dbname": NAME}
            return {"SecretString": json.dumps(secret)}

    assert await logged_in(secret_credentials(Secrets(), "arn")) == f"{NAME} in {NAME}"


def tls_dsn(odd: StrictPostgres, host: str, query: str, user: str = "tls_only") -> str:
    query = query.replace("{ca}", str(odd.authority.path)).replace("{other}", str(odd.stranger.path))
    return f"postgresql://{user}:plain@{host}:{odd.server.port}/postgres?{query}"


async def uses_tls(source: str | None) -> bool:
    async with Database(source) as database, database.transaction("asking") as connection:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


@pytest.mark.parametrize(
    ("host", "query"),
    [
        ("localhost", "sslmode=verify-full&sslrootcert={ca}"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={ca}"),
        ("127.0.0.1", "sslmode=require&sslrootcert={ca}"),
        ("127.0.0.1", "sslmode=require"),
        ("127.0.0.1", "sslmode=prefer"),
        ("127.0.0.1", ""),
    ],
)
async def test_tls_that_is_asked_for_is_had(odd: StrictPostgres, host: str, query: str) -> None:
    """As libpq defines it: verify-full checks authority and name, verify-ca the authority, the others nothing."""
    assert await uses_tls(tls_dsn(odd, host, query))


async def test_the_variables_for_tls_count(odd: StrictPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE and PGSSLROOTCERT hold for every way to give the rest."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(odd.authority.path))
    assert await uses_tls(tls_dsn(odd, "localhost", ""))
    monkeypatch.setenv("PGSSLROOTCERT", str(odd.stranger.path))
    with pytest.raises(Unavailable, match="the server's certificate is not accepted"):
        await uses_tls(tls_dsn(odd, "localhost", ""))


ADVICE = " (sslmode and sslrootcert in database.dsn, or PGSSLMODE and PGSSLROOTCERT)"


@pytest.mark.parametrize(
    ("host", "query", "reason"),
    [
        (
            "localhost",
            "sslmode=verify-full&sslrootcert={other}",
            "the server's certificate is not accepted: unable to get local issuer certificate",
        ),
        (
            "127.0.0.1",
            "sslmode=verify-full&sslrootcert={ca}",
            "the server's certificate is not accepted: IP address mismatch, certificate is not valid for '127.0.0.1'.",
        ),
        ("localhost", "sslmode=verify-full&sslrootcert=/no/ca", "sslrootcert /no/ca: No such file or directory"),
        ("localhost", "sslmode=require&sslrootcert=/proc/version", "sslrootcert /proc/version: [X509"),
        ("localhost", "sslmode=verify-full", 'root certificate file "{home}/.postgresql/root.crt" does not exist'),
        ("localhost", "sslmode=always", "`sslmode` parameter must be one of: disable, allow, prefer, require"),
    ],
)  # fmt: skip
async def test_tls_that_cannot_be_had_is_refused(
    odd: StrictPostgres, tmp_path: Path, host: str, query: str, reason: str
) -> None:
    """A wrong authority, a wrong name, or no way to check: one line that says which, and nothing is sent."""
    with pytest.raises(Unavailable) as caught:
        await uses_tls(tls_dsn(odd, host, query))
    assert caught.value.error_class == "tls"
    assert caught.value.reason.startswith(f"connecting with TLS: {reason.replace('{home}', str(tmp_path))}")
    assert caught.value.reason.endswith(ADVICE)
    assert "\n" not in caught.value.reason


async def test_a_server_without_tls_is_refused(postgres: Postgres, odd: StrictPostgres) -> None:
    """Whoever asks for TLS does not fall back to none; who prefers it does."""
    dsn = postgres.dsn() + "?sslmode="
    for mode in ("require", f"verify-full&sslrootcert={odd.authority.path}"):
        with pytest.raises(Unavailable) as caught:
            await uses_tls(dsn + mode)
        assert (
            caught.value.reason
            == f"connecting with TLS: the server does not speak TLS, and sslmode asks for it{ADVICE}"
        )
    assert not await uses_tls(dsn + "prefer")


async def test_a_server_that_wants_tls_refuses_without(odd: StrictPostgres) -> None:
    """The server's own word is told."""
    with pytest.raises(Unavailable) as caught:
        await uses_tls(tls_dsn(odd, "127.0.0.1", "sslmode=disable"))
    assert caught.value.error_class == "access_denied"
    assert "no encryption" in caught.value.reason or "rejects connection" in caught.value.reason


@pytest.mark.parametrize(
    ("dsn", "problem"),
    [
        ("postgresql://{user}:{odd}@localhost:{port}/d", "database.dsn cannot be read: give postgresql://"),
        ("host=localhost user=me password=hUnter2", "database.dsn cannot be read: give postgresql://"),
        (
            "postgresql://tls_only:hUnter2@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={other}",
            "database: connecting with TLS: the server's certificate is not accepted: unable to get local issuer",
        ),
    ],
)
def test_a_start_that_cannot_trust_the_database_ends_with_2(
    odd: StrictPostgres,
    queue: MakeQueue,
    localstack: LocalStack,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    dsn: str,
    problem: str,
) -> None:
    """What only the operator can mend ends the start at once: one line, nothing waited for, no password told."""
    monkeypatch.setattr("stacworker.app.hide_memory", lambda: None)  # this process is the tests' own
    filled = dsn.format(user=NAME, odd=ODD, port=odd.server.port, other=odd.stranger.path)
    config = tmp_path / "stacworker.yaml"
    consumer = {"name": "items", "type": "load", "queue_url": queue().url}
    config.write_text(yaml.safe_dump(settings_for(filled, localstack, consumer)))
    assert main(["run", "--config", str(config)]) == 2
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("stacworker: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"stacworker: {problem}")
    assert "hUnt" not in told
