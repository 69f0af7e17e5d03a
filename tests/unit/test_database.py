"""Where credentials come from, and what the errors of Postgres become."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict

import asyncpg
import pytest

from stacworker.database import ConnectArgs, Database, iam_credentials
from stacworker.errors import ConfigError, StacworkerError, Transient, Unavailable
from stacworker.postgres_errors import Contended, Gone, Orphan, OutOfRange, Refused, translated

SECRET = {"username": "u", "password": "p@ss/wörd:?", "host": "db.example.com", "port": "6543", "dbname": "stac"}


def test_a_secret_becomes_arguments() -> None:
    """Special characters need no escaping, since no URL is made."""
    assert asdict(ConnectArgs.from_secret(json.dumps(SECRET))) == {
        "dsn": None,
        "host": "db.example.com",
        "port": 6543,
        "user": "u",
        "password": "p@ss/wörd:?",
        "database": "stac",
        "ssl": None,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hunter2", "the secret is no JSON object with username, password, host, dbname"),
        (json.dumps({"username": "u", "password": "hunter2"}), "the secret has no host, dbname"),
        (json.dumps({**SECRET, "port": "hunter2"}), "the secret's port is no number"),
    ],
)
def test_a_bad_secret_is_not_told(text: str, problem: str) -> None:
    """The error says what is missing and never what is there."""
    with pytest.raises(ConfigError) as caught:
        ConnectArgs.from_secret(text)
    assert str(caught.value) == f"database.secret_arn: {problem}"


def test_arguments_hide_their_secrets() -> None:
    """Neither the password nor a DSN that may hold it is printed."""
    assert "hunter2" not in repr(ConnectArgs(dsn="postgresql://u:hunter2@h/d", password="hunter2"))


async def test_a_token_is_made_for_each_connection() -> None:
    """It is asked for with the host, port and user of the DSN, decoded, and needs TLS."""
    asked = []

    async def sign(host: str, port: int, user: str) -> str:
        asked.append((host, port, user))
        return f"token{len(asked)}"

    credentials = iam_credentials(ConnectArgs(dsn="postgresql://us%40er@db.example.com/stac"), sign, {})
    made = [await credentials(), await credentials()]
    assert asked == [("db.example.com", 5432, "us@er")] * 2
    assert [(args.password, args.ssl) for args in made] == [("token1", "require"), ("token2", "require")]


async def test_a_token_does_not_weaken_tls() -> None:
    """TLS is required where nothing is said about it; who asks for more gets it."""

    async def sign(host: str, port: int, user: str) -> str:
        return f"{user}@{host}:{port}"

    verified = ConnectArgs(dsn="postgresql://u@h/d?sslmode=verify-full")
    assert (await iam_credentials(verified, sign, {})()).ssl is None
    environ = {"PGHOST": "h", "PGUSER": "u", "PGPORT": "6543", "PGSSLMODE": "verify-full"}
    assert await iam_credentials(ConnectArgs(), sign, environ)() == ConnectArgs(password="u@h:6543")
    del environ["PGSSLMODE"]
    assert (await iam_credentials(ConnectArgs(), sign, environ)()).ssl == "require"


@pytest.mark.parametrize("dsn", [None, "postgresql:///stac", "postgresql://u@h:port/d"])
def test_a_token_needs_somebody_to_be_for(dsn: str | None) -> None:
    """Without host and user there is nothing to sign."""

    async def sign(host: str, port: int, user: str) -> str:
        raise AssertionError((host, port, user))

    with pytest.raises(ConfigError):
        iam_credentials(ConnectArgs(dsn=dsn), sign, {})


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://u:hunter2@h/d",
        "postgresql://u:hunt/er2@h/d",
        "postgresql://u:12/hunter2@h/d",
        "postgresql://u:1@hunter2@h/d",
        "postgresql://u:12#hunter2@h/d",
        "postgresql://u:12?hunter2=1@h/d",
        "postgresql://u:[hunter2@h/d",
        "postgresql://u:hunter2@h:x/d",
        "postgresql://u:p@h:hunter2/d",
        "host=h user=u password=hunter2 dbname=d",
        "hunter2",
    ],
)
async def test_a_bad_dsn_is_not_told(dsn: str) -> None:
    """What asyncpg says would quote what it could not read, which may be a part of the password."""
    async with Database(dsn) as database:
        with pytest.raises(ConfigError) as caught:
            await database.open()
    assert str(caught.value).startswith("database.dsn cannot be read: give postgresql://")
    assert "hunt" not in "".join(traceback.format_exception(caught.value))


async def test_nobody_there_is_unavailable() -> None:
    """Nothing is wrong with the settings, so polling pauses until the database is back."""
    async with Database("postgresql://u:hunter2@127.0.0.1:1/d") as database:
        with pytest.raises(Unavailable) as caught:
            await database.open()
    assert (caught.value.dependency, caught.value.error_class) == ("database", "connection")
    assert "hunter2" not in str(caught.value)


MEANINGS: dict[str, tuple[type[StacworkerError], str]] = {
    "08006": (Unavailable, "connection"),
    "53300": (Unavailable, "no_resources"),
    "57P01": (Unavailable, "connection"),
    "25006": (Unavailable, "read_only"),
    "28P01": (Unavailable, "access_denied"),
    "42501": (Unavailable, "access_denied"),
    "40P01": (Contended, "deadlock"),
    "40001": (Contended, "serialization"),
    "55P03": (Contended, "lock_timeout"),
    "23505": (Contended, "duplicate"),
    "57014": (Transient, "statement_timeout"),
    "42P01": (Gone, "gone"),
    "23503": (Orphan, "gone"),
    "23514": (OutOfRange, "out_of_range"),
    "22P05": (Refused, "refused"),
    "23502": (Refused, "refused"),
    "54000": (Refused, "refused"),
    "XX000": (Refused, "refused"),
    "XX001": (Unavailable, "server_error"),
    "P0001": (Refused, "refused"),
    "42601": (Transient, "database_error"),
}


@pytest.mark.parametrize("state", MEANINGS)
def test_every_error_says_what_to_do_about_it(state: str) -> None:
    """The type is the retry policy; the text is the database's own."""
    error = asyncpg.PostgresError.new({"C": state, "M": "the words", "D": "a detail"})
    with pytest.raises(StacworkerError) as caught, translated("loading"):
        raise error
    kind, error_class = MEANINGS[state]
    assert type(caught.value) is kind
    assert caught.value.error_class == error_class
    assert caught.value.reason.startswith("loading: the words")


def test_a_refusal_does_not_quote_the_whole_row() -> None:
    """The detail of some errors is a row of many kilobytes; others say what one needs to know."""
    for state, expected in (("23514", "x: no"), ("23502", "x: no"), ("22P05", "x: no (d" + "d" * 199 + "…)")):
        with pytest.raises(StacworkerError) as caught, translated("x"):
            raise asyncpg.PostgresError.new({"C": state, "M": "no", "D": "d" * 300})
        assert caught.value.reason == expected


@pytest.mark.parametrize("error", [OSError("no route"), TimeoutError(), asyncpg.InterfaceError("it is closed")])
def test_a_lost_connection_is_unavailable(error: Exception) -> None:
    """So is a server that does not answer in time."""
    with pytest.raises(Unavailable) as caught, translated("loading"):
        raise error
    assert caught.value.reason == f"loading: {type(error).__name__}: {error}".rstrip(": ")
