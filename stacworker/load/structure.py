"""The structure of STAC items and collections, as the specification has it.

What passes as an item passes as a `stac_pydantic.Item` too, but no models are made, which takes a quarter
of the time. Of a long list only the first bad entry is told: millions of errors would fill the memory.
Geometry, bbox and datetimes are checked in `prepare`.
https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypeVar

from pydantic import AnyUrl, AwareDatetime, Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator
from stac_pydantic.shared import SEMVER_REGEX
from typing_extensions import TypedDict

_MANY = 1000
_T = TypeVar("_T")


def _one_by_one(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Check the entries of a large object singly, up to the first bad one."""
    if not isinstance(value, dict) or len(value) <= _MANY:
        return check(value)
    for name, entry in value.items():
        check({name: entry})
    return value


_Text = Annotated[str, Field(min_length=1)]
_List: TypeAlias = Annotated[list[_T], Field(fail_fast=True)]
_Named: TypeAlias = Annotated[dict[str, _T], WrapValidator(_one_by_one)]


class _Asset(TypedDict):
    href: _Text
    type: NotRequired[str | None]
    title: NotRequired[str | None]
    description: NotRequired[str | None]
    roles: NotRequired[_List[str] | None]


class _Link(TypedDict):
    href: _Text
    rel: _Text
    type: NotRequired[str | None]
    title: NotRequired[str | None]


class _Provider(TypedDict):
    name: _Text
    description: NotRequired[str | None]
    roles: NotRequired[_List[str] | None]
    url: NotRequired[str | None]


class _Properties(TypedDict):
    datetime: NotRequired[str | None]
    start_datetime: NotRequired[str | None]
    end_datetime: NotRequired[str | None]
    title: NotRequired[str | None]
    description: NotRequired[str | None]
    created: NotRequired[AwareDatetime | None]
    updated: NotRequired[AwareDatetime | None]
    license: NotRequired[str | None]
    providers: NotRequired[_List[_Provider] | None]
    platform: NotRequired[str | None]
    instruments: NotRequired[_List[str] | None]
    constellation: NotRequired[str | None]
    mission: NotRequired[str | None]
    gsd: NotRequired[Annotated[float, Field(gt=0)] | None]


class _Item(TypedDict):
    type: Literal["Feature"]
    stac_version: Annotated[str, Field(pattern=SEMVER_REGEX)]
    id: _Text
    collection: _Text
    properties: _Properties
    links: _List[_Link]
    assets: _Named[_Asset]
    stac_extensions: NotRequired[_List[AnyUrl] | None]
    private: NotRequired[dict[str, Any] | None]


_Box = tuple[float, float, float, float] | tuple[float, float, float, float, float, float]


class _Spatial(TypedDict):
    bbox: Annotated[_List[_Box], Field(min_length=1)]


class _Temporal(TypedDict):
    interval: Annotated[_List[tuple[str | None, str | None]], Field(min_length=1)]


class _Extent(TypedDict):
    spatial: _Spatial
    temporal: _Temporal


class _Collection(TypedDict):
    type: Literal["Collection"]
    stac_version: Annotated[str, Field(pattern=SEMVER_REGEX)]
    id: _Text
    description: _Text
    license: _Text
    extent: _Extent
    links: _List[_Link]
    stac_extensions: NotRequired[_List[AnyUrl] | None]
    item_assets: NotRequired[_Named[dict[str, Any]] | None]


_ITEM = TypeAdapter(_Item)
_COLLECTION = TypeAdapter(_Collection)


def check_item(body: dict[str, Any]) -> None:
    """Raise pydantic's `ValidationError` when an item's structure is wrong."""
    _ITEM.validate_python(body)


def check_collection(body: dict[str, Any]) -> None:
    """Raise pydantic's `ValidationError` when a collection's structure is wrong."""
    _COLLECTION.validate_python(body)
