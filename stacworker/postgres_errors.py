"""The errors of Postgres, translated into ours in one place.

asyncpg raises a class for each SQLSTATE, and others for the network and for itself; whoever decides about
a retry reads the types defined here and in `errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable

_DETAIL_MAX = 200


class Refused(Permanent):
    """The database refused data: some of what was sent can never be stored."""

    default_class = "refused"


class OutOfRange(Refused):
    """A row is outside the constraints of the table that it was sent to."""


class Contended(Transient):
    """The transaction lost against another one (deadlock, lock timeout, same key): it may be tried again at once."""

    default_class = "contended"


class Gone(Transient):
    """A table or row that the statement relies on has gone since it was looked up."""

    default_class = "gone"


class Orphan(Gone):
    """The row that a foreign key names does not exist: a collection was deleted."""


_MEANING: dict[str, tuple[type[StacworkerError], str]] = {
    "08": (Unavailable, "connection"),
    "0A000": (Contended, "schema_changed"),  # a cached plan no longer fits; asyncpg has dropped it by now
    "21": (Refused, "refused"),
    "22": (Refused, "refused"),
    "23": (Refused, "refused"),
    "23503": (Orphan, "gone"),
    "23505": (Contended, "duplicate"),  # somebody inserted the same key after we looked
    "23514": (OutOfRange, "out_of_range"),
    "25006": (Unavailable, "read_only"),  # connected to what was the primary before a failover
    "28": (Unavailable, "access_denied"),
    "3D": (Unavailable, "no_database"),
    "3F": (Unavailable, "schema"),
    "40": (Contended, "serialization"),
    "40P01": (Contended, "deadlock"),
    "42501": (Unavailable, "access_denied"),
    "42703": (Unavailable, "schema"),
    "42883": (Unavailable, "schema"),
    "42P01": (Gone, "gone"),
    "53": (Unavailable, "no_resources"),
    "54": (Refused, "refused"),  # such as an id that is too long for its index
    "55000": (Unavailable, "connection"),  # the database accepts no connections
    "55P03": (Contended, "lock_timeout"),
    "57014": (Transient, "statement_timeout"),
    "57P": (Unavailable, "connection"),
    "58": (Unavailable, "server_error"),
    "F0": (Unavailable, "server_error"),
    "P0001": (Refused, "refused"),  # raised by pgstac's functions
    "XX000": (Refused, "refused"),  # raised by PostGIS for geometries
    "XX": (Unavailable, "server_error"),
}
"""By SQLSTATE or the beginning of one. https://www.postgresql.org/docs/current/errcodes-appendix.html"""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn the errors of asyncpg and of the network into ours, with the database's own words.

    Away, full, read-only, or its credentials or rights are wrong: `Unavailable("database")`. Lost
    against another transaction: `Contended`. A table or parent row has gone: `Gone`. Took too long:
    `Transient`. Data that cannot be stored: `Refused`, or `OutOfRange` for a CHECK constraint.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _from_postgres(error, doing) from error
    except asyncpg.OutdatedSchemaCacheError as error:
        raise Contended(f"{doing}: the schema has changed", error_class="schema_changed") from error
    except asyncpg.InterfaceError as error:
        if "clos" not in str(error):
            raise  # asyncpg is used wrongly: a defect, and no reason to wait for the database
        raise _lost(error, doing) from error
    except (asyncpg.InternalClientError, TimeoutError, OSError) as error:
        raise _lost(error, doing) from error


def _lost(error: Exception, doing: str) -> Unavailable:
    text = f"{doing}: {type(error).__name__}: {error}".rstrip(": ")
    return Unavailable(text, dependency="database", error_class="connection")


def _from_postgres(error: asyncpg.PostgresError, doing: str) -> StacworkerError:
    state = error.sqlstate or ""
    text = f"{doing}: {_words(error)}"
    # The most specific entry counts.
    kind, error_class = next(
        (_MEANING[state[:length]] for length in (5, 3, 2) if state[:length] in _MEANING),
        (Transient, "database_error"),
    )
    if kind is Unavailable:
        return Unavailable(text, dependency="database", error_class=error_class)
    return kind(text, error_class=error_class)


def _words(error: asyncpg.PostgresError) -> str:
    message = str(getattr(error, "message", None) or error)
    detail = getattr(error, "detail", None)
    if not detail or isinstance(error, asyncpg.CheckViolationError | asyncpg.NotNullViolationError):
        return message  # the detail of those is the whole row
    clipped = detail if len(detail) <= _DETAIL_MAX else f"{detail[:_DETAIL_MAX]}…"
    return f"{message} ({clipped})"
