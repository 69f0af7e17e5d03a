"""How a load ends."""

from __future__ import annotations

from dataclasses import dataclass

from stacworker.errors import Permanent, Transient


class Busy(Transient):
    """Other writers held the collection for too long: nothing was tried, so this counts as no attempt."""

    default_class = "busy"


class MissingCollection(Permanent):
    """The collection does not exist; true of every item of the batch."""

    default_class = "collection_missing"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of each id of a committed load.

    `loaded` are in the catalogue with this content. `superseded` are not, because the catalogue keeps what
    it has: something newer, or anything at all with `conflict="ignore"`. `conflicting` exist already, with
    `conflict="error"`.
    """

    loaded: frozenset[str]
    superseded: frozenset[str] = frozenset()
    conflicting: frozenset[str] = frozenset()
