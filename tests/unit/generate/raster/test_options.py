"""The options of the raster generator, and how their mistakes are told."""

from __future__ import annotations

from typing import Any

import pytest

from stacworker.errors import ConfigError
from stacworker.generate.raster.options import RasterOptions


def options(**changes: Any) -> RasterOptions:
    return RasterOptions.of("cogs", {"destination": "s3://bucket/cogs/", **changes})


def test_a_destination_is_a_bucket_and_a_prefix() -> None:
    """Both come out of one URL; the prefix may be empty."""
    assert (options().bucket, options().prefix) == ("bucket", "cogs/")
    bare = options(destination="s3://bucket")
    assert (bare.bucket, bare.prefix) == ("bucket", "")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"destination": "https://elsewhere/secret"}, "destination: give s3://bucket/prefix/"),
        ({"blocksize": 500}, "blocksize: give a multiple of 16"),
        ({"kind": "secret"}, "kind: Input should be 'auto', 'continuous' or 'categorical'"),
        ({"secrt": 1}, "secrt: Extra inputs are not permitted"),
        ({"id_pattern": "(secret"}, "id_pattern: this is no regular expression"),
        ({"id_pattern": "secret"}, "options: id_pattern needs the group (?P<id>…)"),
        ({"local_paths": ["secret/relative"]}, "local_paths: give a folder's whole path, such as /data/granules"),
        ({"public_url": "ftp://secret"}, "public_url: give the URL under which the destination's prefix is served"),
    ],
)
def test_a_mistake_is_a_line_with_its_key_and_without_its_value(changes: dict[str, Any], line: str) -> None:
    """Options may hold secrets in the wrong place, so only keys are named."""
    with pytest.raises(ConfigError) as error:
        options(**changes)
    (found,) = error.value.problems
    assert found.startswith("generators.cogs.options")
    assert line in found
    assert "secret" not in found


def test_all_mistakes_are_told_at_once() -> None:
    """One line a mistake."""
    with pytest.raises(ConfigError) as error:
        RasterOptions.of("cogs", {"blocksize": 5, "threads": 0})
    assert [line.split(":")[0].rpartition(".")[2] for line in error.value.problems] == [
        "blocksize",
        "destination",
        "threads",
    ]


def test_only_what_makes_another_cog_changes_the_digest() -> None:
    """A changed limit or ACL must not have every COG made again; a changed block size must."""
    assert options().digest == options(max_source_bytes=5, acl="private", destination="s3://other/").digest
    assert len({options().digest, options(blocksize=256).digest, options(crs="EPSG:3857").digest}) == 3
