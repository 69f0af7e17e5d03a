"""Assets that are copied before their items are published."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from stacworker.aws import Aws
from stacworker.errors import Permanent, Transient
from stacworker.generate.copies import AssetCopies
from stacworker.settings import CopySettings
from tests.integration.aws import Bucket, MakeBucket, MakeQueue
from tests.integration.worker import Catalogue, Worker

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

MakeCopies = Callable[..., AssetCopies]


@pytest.fixture
def target(bucket: MakeBucket) -> Bucket:
    return bucket("copies")


@pytest.fixture
async def client(aws: Aws) -> AsyncIterator[Any]:
    async with aws.client("s3") as opened:
        yield opened


@pytest.fixture
def copies(client: Any, target: Bucket) -> MakeCopies:
    def make(buckets: tuple[str, ...] = ("*",), **options: Any) -> AssetCopies:
        return AssetCopies(CopySettings(to=f"s3://{target.name}/kept", **options), client, allowed_buckets=buckets)

    return make


def item(**assets: str) -> dict[str, Any]:
    return {"id": "a/b", "collection": "c", "assets": {name: {"href": href} for name, href in assets.items()}}


def hrefs(found: list[dict[str, Any]]) -> dict[str, str]:
    return {name: asset["href"] for name, asset in found[0]["assets"].items()}


async def test_an_asset_is_copied_and_named(copies: MakeCopies, bucket: MakeBucket, target: Bucket, s3: Any) -> None:
    """With its content, its media type and its suffix; what else the asset says stays."""
    href = await bucket("source").put("x/scene.tar.gz", b"data")
    made = item(data=href)
    made["assets"]["data"] |= {"type": "application/gzip", "title": "Data"}
    async with copies() as copying:
        found = await copying.copied([made])
    made_href = found[0]["assets"]["data"]["href"]
    assert found[0]["assets"]["data"] == {"href": made_href, "type": "application/gzip", "title": "Data"}
    assert re.fullmatch(rf"s3://{target.name}/kept/c/a%2Fb/data/[0-9a-f]{{16}}\.tar\.gz", made_href)
    copy = s3.get_object(Bucket=target.name, Key=made_href.removeprefix(f"s3://{target.name}/"))
    assert (copy["Body"].read(), copy["ContentType"]) == (b"data", "application/gzip")
    assert made["assets"]["data"]["href"] == href


async def test_each_state_of_a_source_has_its_copy(
    copies: MakeCopies, bucket: MakeBucket, target: Bucket, s3: Any
) -> None:
    """A late message about an older state cannot change what a newer item names; a copy is no source."""
    source = bucket("source")
    old, new = await source.put("old/scene.tif", b"old"), await source.put("new/scene.tif", b"new")
    async with copies() as copying:
        newer = await copying.copied([item(data=new)])
        older = await copying.copied([item(data=old)])
        assert await copying.copied(newer) == newer

    def content(found: list[dict[str, Any]]) -> bytes:
        key = hrefs(found)["data"].removeprefix(f"s3://{target.name}/")
        body: bytes = s3.get_object(Bucket=target.name, Key=key)["Body"].read()
        return body

    assert (content(newer), content(older)) == (b"new", b"old")


async def test_names_of_assets_do_not_meet(copies: MakeCopies, bucket: MakeBucket) -> None:
    """Not even where one's name ends like the other's suffix."""
    source = bucket("source")
    first, second = await source.put("a.tif", b"1"), await source.put("plain", b"2")
    async with copies() as copying:
        found = hrefs(await copying.copied([item(**{"B01": first, "B01.tif": second})]))
    assert len(set(found.values())) == 2


async def test_a_media_type_that_cannot_be_sent_is_guessed(
    copies: MakeCopies, bucket: MakeBucket, target: Bucket, s3: Any
) -> None:
    """What an item says becomes no header that S3 refuses."""
    href = await bucket("source").put("a.json", b"{}")
    for number, told in enumerate(("x" * 100_000, "text/\n", "späte/art", 7)):
        made = item(data=href) | {"id": str(number)}
        made["assets"]["data"]["type"] = told
        async with copies() as copying:
            found = hrefs(await copying.copied([made]))["data"]
        head = s3.head_object(Bucket=target.name, Key=found.removeprefix(f"s3://{target.name}/"))
        assert head["ContentType"] == "application/json"


async def test_what_is_there_already_is_not_read_again(
    copies: MakeCopies, bucket: MakeBucket, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that comes twice costs two small calls an asset."""
    href = await bucket("source").put("scene.tif", b"one")
    async with copies() as copying:
        await copying.copied([item(data=href)])

        async def refuse(**_: Any) -> None:
            raise AssertionError("written again")

        monkeypatch.setattr(client, "put_object", refuse)
        await copying.copied([item(data=href)])


async def test_only_the_assets_that_are_chosen(copies: MakeCopies, bucket: MakeBucket, target: Bucket) -> None:
    """By name, with patterns; the others keep their place."""
    href = await bucket("source").put("scene.tif", b"x")
    async with copies(assets=("visual", "B0?")) as copying:
        found = await copying.copied([item(visual=href, B04=href, B11="https://elsewhere/B11.tif")])
    named = hrefs(found)
    assert named["visual"].startswith(f"s3://{target.name}/kept/c/a%2Fb/visual/")
    assert named["B04"].startswith(f"s3://{target.name}/kept/c/a%2Fb/B04/")
    assert named["B11"] == "https://elsewhere/B11.tif"


@pytest.mark.parametrize(
    ("href", "reason"),
    [
        ("s3://{other}/x.tif", "allowed buckets"),
        ("https://host.example/x.tif", "allowed_hosts"),
        ("/etc/passwd", "local_paths"),
        ("file:///etc/passwd", "local_paths"),
        ("s3://{source}/gone.tif", "no such object"),
        ("s3://{source}/large.tif", "max_source_bytes"),
        ("", "local_paths"),
        ("http://[bad", "not an address"),
        ("file:///x\x00y", "not an address"),
    ],
)
async def test_what_may_not_be_read_refuses_the_item(
    copies: MakeCopies, bucket: MakeBucket, target: Bucket, s3: Any, href: str, reason: str
) -> None:
    """For good, with the setting that says so; nothing is written and no file is left."""
    source, other = bucket("source"), bucket("other")
    await source.put("large.tif", b"x" * 2000)
    await other.put("x.tif", b"x")
    async with copies(buckets=(source.name,), max_source_bytes=1000) as copying:
        with pytest.raises(Permanent, match=reason):
            await copying.copied([item(data=href.format(source=source.name, other=other.name))])
        assert os.listdir(str(copying._workspace._path)) == []  # noqa: PTH208 - nothing waits here
    assert "Contents" not in s3.list_objects_v2(Bucket=target.name)


async def test_a_bucket_that_is_not_there_is_no_items_fault(client: Any, bucket: MakeBucket) -> None:
    """It pauses the consumer, and no item is lost."""
    href = await bucket("source").put("x.tif", b"x")
    options = CopySettings(to="s3://no-such-bucket-anywhere/x/")
    async with AssetCopies(options, client, allowed_buckets=("*",)) as copying:
        with pytest.raises(Exception, match="no-such-bucket-anywhere") as raised:
            await copying.copied([item(data=href)])
    assert not isinstance(raised.value, Permanent)
    assert raised.value.error_class in ("bucket_missing", Transient.default_class)


async def test_a_worker_publishes_items_with_their_copies(
    worker: Callable[..., Worker],
    queue: MakeQueue,
    bucket: MakeBucket,
    catalogue: Catalogue,
    target: Bucket,
    s3: Any,
    tmp_path: Path,
) -> None:
    """A good one is in the catalogue and names its copy; one whose asset is gone is a dead letter."""
    (tmp_path / "made.py").write_text(
        "def create_items(request):\n"
        "    return {'type': 'Feature', 'stac_version': '1.0.0', 'id': request['id'], 'links': [],\n"
        "      'geometry': {'type': 'Point', 'coordinates': [1, 2]}, 'bbox': [1, 2, 1, 2],\n"
        "      'properties': {'datetime': '2024-01-01T00:00:00Z'}, 'assets': {'data': {'href': request['path']}}}\n"
    )
    requests, source = queue("requests", max_receive_count=3), bucket("source")
    href = await source.put("x.tif", b"content")
    running = worker(
        {
            "name": "requests",
            "type": "generate",
            "queue_url": requests.url,
            "collection": "things",
            "copy_assets": {"to": f"s3://{target.name}/"},
        },
        generators={"made": {"type": "made:create_items"}},
    )
    await running.start()
    await requests.send(
        json.dumps({"id": "good", "path": href}), json.dumps({"id": "bad", "path": f"s3://{source.name}/gone"})
    )
    await catalogue.until_count("things", 1)
    (found,) = await catalogue.search(collections=["things"])
    key = found["assets"]["data"]["href"].removeprefix(f"s3://{target.name}/")
    assert key.startswith("things/good/data/")
    assert s3.get_object(Bucket=target.name, Key=key)["Body"].read() == b"content"
    assert requests.dead_letters is not None
    (letter,) = await requests.dead_letters.drain(1)
    assert "no such object" in letter.attributes["stacworker_reason"]
    assert await running.stop() == 0
