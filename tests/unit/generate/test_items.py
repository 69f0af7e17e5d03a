"""Items as JSON, with orjson and without."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.generate.child import items
from stacworker.generate.child.items import MAX_DEPTH, NotItems, encode, items_of, plain

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=20),
)


@given(documents)
def test_json_stays_what_it_is(document: dict[str, Any]) -> None:
    """Whatever is JSON comes out equal, with either encoder."""
    assert json.loads(encode(document)) == document
    assert plain(document, "item") == document


@pytest.mark.parametrize("without_orjson", [False, True])
@given(document=st.dictionaries(st.text(max_size=3), st.floats() | st.datetimes(timezones=st.just(UTC)) | st.text()))
def test_both_encoders_write_the_same(without_orjson: bool, document: dict[str, Any]) -> None:  # noqa: FBT001 - a parameter
    """NaN and infinities are null, dates RFC 3339, whether the environment has orjson or not."""
    expected = {
        key: None if isinstance(value, float) and not math.isfinite(value)
        else value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime)
        else value
        for key, value in document.items()
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        if without_orjson:
            patch.setattr(items, "orjson", None)
        assert json.loads(encode(document)) == expected


def test_dates_are_rfc_3339() -> None:
    """A date without zone is UTC; other zones stay."""
    east = timezone(timedelta(hours=2))
    moments = [datetime(2020, 1, 2), datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=east)]  # noqa: DTZ001 - naive on purpose
    expected = ["2020-01-02T00:00:00Z", "2020-01-02T00:00:00Z", "2020-01-02T00:00:00+02:00", "2020-01-02"]
    assert plain([*moments, date(2020, 1, 2)], "item") == expected
    assert json.loads(encode({"all": [*moments, date(2020, 1, 2)]})) == {"all": expected}


class Colour(Enum):
    RED = object()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


LOOP: dict[str, Any] = {}
LOOP["self"] = LOOP


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"a": {"b": [1, {1, 2}]}}, "item.a.b[1] is a builtins.set, which JSON cannot hold"),
        ({"a": b"x"}, "item.a is a builtins.bytes, which JSON cannot hold"),
        ({"a": Colour.RED}, "item.a is a tests.unit.generate.test_items.Colour, which JSON cannot hold"),
        ({"a": {1: 2}}, "item.a has the key 1 of type int, expected text"),
        ({"a": 2**64}, "item.a is an integer of more than 64 bits"),
        ({"a": "\ud800"}, "item.a is text with lone surrogates, which JSON cannot hold"),
        ({"\ud800": 1}, "item key is text with lone surrogates, which JSON cannot hold"),
    ],
)
def test_what_is_not_json_is_named_with_its_path(item: dict[Any, Any], reason: str) -> None:
    """The user finds the culprit without searching."""
    with pytest.raises(NotItems) as caught:
        encode(item)
    assert str(caught.value) == reason


@pytest.mark.parametrize("item", [LOOP, {"a": nested(MAX_DEPTH * 30)}])
def test_endless_nesting_is_an_error_and_no_crash(item: dict[str, Any]) -> None:
    """An item that contains itself is refused like one that is too deep."""
    with pytest.raises(NotItems, match="nested more than 100 levels deep"):
        encode(item)


@given(scalars.filter(lambda value: not isinstance(value, dict)))
def test_scalars_are_never_items(value: Any) -> None:
    """Text is iterable, and still no iterable of items."""
    with pytest.raises(NotItems):
        list(items_of(value))
