"""What is left of an item without its base item, and that nothing is lost by it."""

from __future__ import annotations

from typing import Any

import pypgstac.hydration
from hypothesis import given
from hypothesis import strategies as st

from stacworker.load.pgstac.dehydrate import DO_NOT_MERGE, dehydrate
from tests.naip import naip_collection, naip_items

# Numbers and booleans are kept apart: for Python, and so for pypgstac, 1 equals true.
scalars = st.integers(2, 4) | st.sampled_from(["a", "b"]) | st.booleans()
values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)


def base_of(collection: dict[str, Any]) -> dict[str, Any]:
    """Return a collection's base item, as pgstac computes it."""
    return {
        "type": "Feature",
        "stac_version": collection["stac_version"],
        "assets": collection["item_assets"],
        "collection": collection["id"],
    }


def without_nulls(value: Any) -> Any:
    """Return what pgstac shows of a value: objects never have nulls in them."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def test_real_items_come_out_as_pypgstac_has_them() -> None:
    """The same bytes go to the database as with pypgstac's Loader."""
    base = base_of(naip_collection())
    for item in naip_items():
        assert dehydrate(base, item) == pypgstac.hydration.dehydrate(base, item)


def test_what_pypgstac_loses_is_kept() -> None:
    """An empty list, and objects where the base has none, come back; a null comes back as a missing key."""
    base = {"roles": ["data"], "title": "t", "bands": [2], "note": {"a": 2}}
    item = {"roles": [], "title": {"en": "t"}, "bands": {"b": 2}, "note": None}
    assert dehydrate(base, item) == {**item, "note": DO_NOT_MERGE}


@given(objects, objects)
def test_hydrating_gives_the_item_back(base: dict[str, Any], item: dict[str, Any]) -> None:
    """Hydration as pypgstac does it undoes it, up to nulls, which pgstac does not show anyway."""
    dehydrated = dehydrate(base, without_nulls(item))
    assert without_nulls(pypgstac.hydration.hydrate_py(base, dehydrated)) == without_nulls(item)


@given(objects, objects)
def test_neither_is_changed(base: dict[str, Any], item: dict[str, Any]) -> None:
    """Both are used again: the base item for the next item, the item when a load is retried."""
    before = repr(base), repr(item)
    dehydrate(base, item)
    assert (repr(base), repr(item)) == before
