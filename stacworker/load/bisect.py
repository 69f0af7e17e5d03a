"""Find the bad items of a batch that the database refused, and load all others.

The database names no item when it refuses a batch, so the batch is halved until the bad ones stand
alone: b bad items among n cost about 2·b·log2(n/b) further loads, and all together never 2·n.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from stacworker.errors import Permanent, StacworkerError, Transient
from stacworker.load.pgstac import Loaded, Refused
from stacworker.load.prepare import Prepared

_log = structlog.get_logger(__name__)

MAX_DEFECTS = 3
"""After so many items that alone raise an unexpected error, the fault is not the items'."""


@dataclass(slots=True)
class Isolated:
    """What became of each item of a batch, by id.

    `loaded`, `superseded` (the catalogue keeps what it has) and `conflicting` are the answers of committed
    loads. `errors` are items' own: `Permanent`, or `Transient` after an unexpected error. `failure` stopped
    the load of all that is named nowhere else. `splits` counts the halvings.
    """

    loaded: set[str] = field(default_factory=set)
    superseded: set[str] = field(default_factory=set)
    conflicting: set[str] = field(default_factory=set)
    errors: dict[str, StacworkerError] = field(default_factory=dict)
    failure: StacworkerError | None = None
    splits: int = 0


async def load_isolating(
    load: Callable[[Sequence[Prepared]], Awaitable[Loaded]], items: Sequence[Prepared]
) -> Isolated:
    """Load `items` (distinct ids), halving what is refused; return what became of each.

    `load` commits all it is given or nothing. What it raises means: `Refused`: some item is bad; another
    `Permanent`: true of every item given; `Transient`, `Unavailable`: stop here, and what is committed
    stays. An unexpected error is halved too: a defect that one item sets off must not cost the others.
    Nothing but cancellation is raised.
    """
    found = Isolated()
    parts = [items]
    defects = 0
    while parts and found.failure is None:
        part = parts.pop()
        try:
            done = await load(part)
        except Refused as refused:
            error: Exception = refused
        except Permanent as verdict:
            found.errors.update((item.id, verdict) for item in part)
            continue
        except StacworkerError as failure:
            found.failure = failure
            continue
        except Exception as defect:  # noqa: BLE001 - told to the message of the item that sets it off
            error = defect
        else:
            found.loaded |= done.loaded
            found.conflicting |= done.conflicting
            found.superseded |= {item.id for item in part} - done.loaded - done.conflicting
            continue
        if len(part) > 1:
            found.splits += 1
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]
        elif isinstance(error, Permanent):
            found.errors[part[0].id] = error
        else:
            defects += 1
            found.errors[part[0].id] = _unexpected(part[0], error)
            if defects == MAX_DEFECTS:
                found.failure = found.errors[part[0].id]
    return found


def _unexpected(item: Prepared, error: Exception) -> Transient:
    _log.error("load.unexpected", collection=item.collection, item_id=item.id, exc_info=error)
    told = Transient(
        f"loading item {item.id!r} of collection {item.collection!r} failed unexpectedly "
        f"({type(error).__name__}: {error}); {item.origin}",
        error_class="unexpected",
    )
    told.__cause__ = error
    return told
