"""Every error that stacworker raises on purpose.

Retry policy reads these types and nothing else. An adapter that meets a foreign error (botocore,
asyncpg, a generator's exception) translates it here, once::

    StacworkerError
    ├── Permanent       this message can never succeed: dead-letter it with the reason
    │   └── Rejected    some documents of a message are bad, the rest are in the catalogue
    ├── Transient       it may succeed later: try the message again after a backoff
    ├── Unavailable     a dependency is away: pause polling, give messages back
    └── ConfigError     a setting is wrong: refuse to start (exit code 2)
"""

from __future__ import annotations

from dataclasses import dataclass

from stacworker.redaction import redacted

REASON_MAX_BYTES = 1024


class StacworkerError(Exception):
    """Base of all errors raised by stacworker.

    `error_class` is a short snake_case label with few values (it becomes a metric label and the
    `stacworker_error_class` attribute of a dead letter); `str(error)` is a reason for people, in which the
    credentials of URLs that it quotes do not stand (`redaction.py`).
    """

    default_class = "error"

    def __init__(self, reason: str, *, error_class: str | None = None) -> None:
        self.reason = redacted(str(reason))  # a plugin may hand over the exception that it caught
        super().__init__(self.reason)
        self.error_class = error_class or self.default_class


class Permanent(StacworkerError):  # noqa: N818 - named for what to do about it
    """The message can never succeed; it belongs in the dead-letter queue, with this reason."""

    default_class = "permanent"

    def __init__(
        self,
        reason: str,
        *,
        error_class: str | None = None,
        collection: str | None = None,
        item_id: str | None = None,
    ) -> None:
        super().__init__(reason, error_class=error_class)
        self.collection = collection
        self.item_id = item_id


@dataclass(frozen=True, slots=True)
class Refusal:
    """One bad document of a message: why, and the document in a form that can be sent again.

    `body` is the text of the dead letter: the item alone, as JSON, or the unreadable text as it was.
    None: the message's own body stands for it, because the document cannot be told apart from it or is
    too large for a message.
    """

    error: Permanent
    body: str | None = None


class Rejected(Permanent):
    """Some documents of a message were refused; all its others are in the catalogue."""

    default_class = "rejected"

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        first = refusals[0].error
        super().__init__(
            first.reason,
            error_class=first.error_class,
            collection=first.collection,
            item_id=first.item_id,
        )
        self.refusals = refusals


class Transient(StacworkerError):  # noqa: N818 - named for what to do about it
    """The message failed in a way that may pass; it is retried after a backoff."""

    default_class = "transient"


class Unavailable(StacworkerError):  # noqa: N818 - named for what to do about it
    """A dependency is away; every message would fail, so polling pauses until it answers again.

    `dependency` is a label with few values: `database`, `sqs`, `s3`, `sns`, `generator`.
    """

    default_class = "unavailable"

    def __init__(self, reason: str, *, dependency: str, error_class: str | None = None) -> None:
        super().__init__(reason, error_class=error_class)
        self.dependency = dependency


class ConfigError(StacworkerError):
    """A setting, a plugin or a schema version makes it impossible to start. One line per problem."""

    default_class = "config"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(redacted(problem) for problem in problems)


def clip_reason(reason: str, max_bytes: int = REASON_MAX_BYTES) -> str:
    """Cut a reason to what fits a message attribute, and make it legal there (no control characters)."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in reason).strip() or "no reason given"
    data = clean.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode("utf-8")
    return data[: max_bytes - 3].decode("utf-8", "ignore") + "…"
