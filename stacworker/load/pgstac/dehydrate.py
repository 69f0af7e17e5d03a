"""What of an item its collection's base item does not say already.

pgstac stores items without what they share with `item_assets` of their collection, and merges it in again
when they are read (`merge_jsonb` in its SQL, `hydrate` in pypgstac).
"""

from __future__ import annotations

from typing import Any

DO_NOT_MERGE = "𒍟※"
"""Stands where the base item has a key and the item has none."""


def dehydrate(base: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Return `item` without what `base` holds as well; neither is changed, and their parts are shared.

    The result is that of `pypgstac.hydration.dehydrate`, except where that one loses something: an empty
    list stays an empty list, and an object stays whole where the base has none. A null is stored as a missing
    key, since reading it back would give the base's value. As in Python, 1 equals true.
    """
    out: dict[str, Any] = {}
    for key, value in item.items():
        if key not in base:
            out[key] = value
            continue
        shared = base[key]
        if shared == value:
            continue
        if isinstance(value, dict) and isinstance(shared, dict):
            out[key] = dehydrate(shared, value)
        elif isinstance(value, list) and isinstance(shared, list) and len(value) == len(shared):
            out[key] = [
                dehydrate(theirs, ours) if isinstance(ours, dict) and isinstance(theirs, dict) else ours
                for theirs, ours in zip(shared, value, strict=True)
            ]
        else:
            out[key] = DO_NOT_MERGE if value is None else value
    if not base.keys() <= item.keys():
        out.update((key, DO_NOT_MERGE) for key in base if key not in item)
    return out
