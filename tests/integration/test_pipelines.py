"""Datasets as folders, served by a real worker: triggers, collections, environments, and those that are broken."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.aws import MakeBucket, MakeQueue, MakeTopic
from tests.integration.conftest import MakeWorker
from tests.integration.worker import Catalogue, Worker

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

ITEMS = """
def create_items(request, **options):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": request.get("id") or request["href"].rsplit("/", 1)[-1],
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]}, "bbox": [10.0, 50.0, 10.0, 50.0],
        "properties": {"datetime": "2024-03-05T10:00:00Z", **options}, "links": [], "assets": {},
    }
"""


def collection(collection_id: str, **more: Any) -> dict[str, Any]:
    """Return a small valid collection."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": collection_id,
        "description": collection_id,
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        **more,
    }


class Folder:
    """A folder of pipelines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, settings: dict[str, Any], **files: str) -> Path:
        """Write one; JSON is YAML. `items=` is the content of items.py, and so on."""
        folder = self.path / name
        folder.mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(json.dumps(settings))
        for stem, text in files.items():
            suffix = {"requirements": "txt", "collection_json": "json"}.get(stem, "py")
            (folder / f"{stem.removesuffix('_json')}.{suffix}").write_text(textwrap.dedent(text))
        return folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "pipelines")


@pytest.fixture
def serving(worker: MakeWorker, folder: Folder, tmp_path: Path) -> Callable[..., Worker]:
    """Make workers that serve the folder."""

    def make(**more: Any) -> Worker:
        return worker(
            pipelines={"folder": str(folder.path), **more.pop("pipelines", {})},
            environments={"folder": str(tmp_path / "environments")},
            **more,
        )

    return make


async def test_two_pipelines_are_served_by_one_process(
    folder: Folder, serving: Callable[..., Worker], queue: MakeQueue, catalogue: Catalogue
) -> None:
    """Each has its own queue, module of the same name, collection and options; a request reaches its own alone."""
    one, two = queue("one"), queue("two")
    for name, source in (("one", one), ("two", two)):
        folder.add(
            name,
            {
                "triggers": {"queue_url": source.url},
                "generator": {"type": "items:create_items", "options": {"from": name}},
                "collection": f"of-{name}",
                "limits": {"wait_time_s": 1},
                "loading": {"max_batch_items": 7},
            },
            items=ITEMS,
            collection_json=json.dumps(collection(f"of-{name}")),
        )
    running = serving()
    await running.start()
    await one.send('{"href": "s3://b/a.tif"}')
    await two.send('{"href": "s3://b/b.tif"}', '{"href": "s3://b/c.tif"}')
    await catalogue.until_count("of-one", 1)
    await catalogue.until_count("of-two", 2)
    found = await catalogue.search(collections=["of-one", "of-two"])
    assert sorted((item["id"], item["collection"], item["properties"]["from"]) for item in found) == [
        ("a.tif", "of-one", "one"),
        ("b.tif", "of-two", "two"),
        ("c.tif", "of-two", "two"),
    ]
    assert running.metric("pipelines", state="running") == 2
    assert await running.stop() == 0


async def test_notifications_of_any_form_reach_a_pipeline(
    folder: Folder,
    serving: Callable[..., Worker],
    queue: MakeQueue,
    topic: MakeTopic,
    bucket: MakeBucket,
    catalogue: Catalogue,
) -> None:
    """S3 to SNS to SQS, Sentinel-1's own form, and with any_object a form that nobody knows."""
    notified, made, source = queue("notified", max_receive_count=3), topic(), bucket()
    made.subscribe(notified)
    folder.add(
        "any",
        {
            "triggers": {"queue_url": notified.url, "any_object": True},
            "collection": "things",
            "limits": {"wait_time_s": 1},
        },
        items=ITEMS.replace('request["href"]', 'request.get("href", request.get("granule", "x"))'),
    )
    running = serving()
    await running.start()
    source.notify(notified.arn)
    await source.put("scenes/a b.tif", b"x")
    await made.publish(json.dumps({"id": "S1A", "path": "GRD/2022/11"}))
    await made.publish(json.dumps({"granule": "unknown/form"}))
    await notified.send(json.dumps({"Message": json.dumps({"granule": "backfill/shape"})}))
    await catalogue.until_count("things", 4)
    assert await catalogue.ids("things") == ["S1A", "a b.tif", "form", "shape"]
    assert await running.stop() == 0


async def test_a_collection_is_made_and_updated_and_else_left_alone(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue
) -> None:
    """collection.py is called at start, in the pipeline's own process; an equal collection is not written again."""
    settings = {"triggers": {"once": [{"id": "only"}]}, "collection": "made"}
    path = folder.add("made", settings, items=ITEMS, collection=_collection_py("first"))

    async def start() -> str:
        running = serving()
        await running.start()
        await catalogue.until_count("made", 1)
        assert await running.stop() == 0
        (event,) = running.events("pipeline.collection")
        return str(event["done"])

    assert await start() == "created"
    assert await start() == "unchanged"
    (path / "collection.py").write_text(_collection_py("second"))
    assert await start() == "updated"
    (found,) = [
        each for each in json.loads(await catalogue.value("SELECT pgstac.all_collections()")) if each["id"] == "made"
    ]
    assert found["description"] == "second"


def _collection_py(description: str) -> str:
    return f"def create_collection():\n    return {collection('made', description=description)!r}\n"


async def test_once_and_schedule_and_feed_need_no_queue(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue
) -> None:
    """What a pipeline asks of itself is worked on like messages are."""
    common = {"collection": "things"}
    folder.add("zarr", {"triggers": {"once": True}, **common}, items=ITEMS.replace('request.get("id")', '"zarr"'))
    folder.add(
        "listed",
        {"triggers": {"schedule": {"every": "1s"}}, **common},
        items=ITEMS,
        inventory="""
            async def create_requests():
                for number in range(2500):
                    yield {"id": f"listed-{number}"}
                yield "https://host/listed-last"
        """,
    )
    folder.add(
        "fed",
        {"triggers": {"feed": {"type": "own_feed:Feed", "options": {"count": 3}}}, **common},
        items=ITEMS,
        own_feed="""
            class Feed:
                def __init__(self, count):
                    self.count = count
                async def requests(self):
                    for number in range(self.count):
                        yield {"id": f"fed-{number}"}
        """,
    )
    running = serving()
    await running.start()
    await catalogue.until_count("things", 1 + 2501 + 3)
    await running.until(lambda: len([e for e in running.events("pipeline.asked") if e["trigger"] == "schedule"]) > 1)
    assert await running.stop() == 0


async def test_what_fails_in_an_inventory_is_told_and_tried_again(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue, tmp_path: Path
) -> None:
    """The requests before the failure come through, nothing else stops, and the next try completes."""
    folder.add(
        "listed",
        {"triggers": {"once": True}, "collection": "things"},
        items=ITEMS,
        inventory=f"""
            from pathlib import Path
            def create_requests():
                yield {{"id": "first"}}
                mark = Path({str(tmp_path / "mark")!r})
                if not mark.exists():
                    mark.touch()
                    raise ConnectionError("the inventory is not there")
                yield {{"id": "second"}}
        """,
    )
    running = serving(module="tests.integration.impatient")
    await running.start()
    await catalogue.until_count("things", 2)
    (failed,) = running.events("pipeline.trigger_failed")
    assert "the inventory is not there" in failed["error"]
    assert running.metric("trigger_failures_total", pipeline="listed") == 1
    assert await running.stop() == 0


async def test_what_is_refused_does_not_stand_in_the_way(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue
) -> None:
    """More bad requests than the queue in memory holds: each is in the log with its reason; the good one is loaded."""
    folder.add(
        "listed",
        {"triggers": {"once": True}, "collection": "things"},
        items="def create_items(request):\n    if request['id'] < 1200:\n        raise ValueError('bad granule')\n"
        + ITEMS.replace("\ndef create_items(request, **options):\n", "")
        .replace(", **options}", "}")
        .replace('request.get("id") or', '"good" or'),
        inventory="""
            def create_requests():
                for number in range(1201):
                    yield {"id": number}
        """,
    )
    running = serving()
    await running.start()
    await catalogue.until_count("things", 1)
    await running.until(lambda: running.metric("messages_total", outcome="dead_lettered") == 1200)
    refused = running.events("pipeline.request_refused")
    assert len(refused) == 1200
    assert refused[0]["request"] == '{"id": 0}'
    assert "bad granule" in refused[0]["error"]
    assert await running.stop() == 0


MISWRITTEN = [
    ({"triggers": {}}, {"items": ITEMS}, "triggers: give queue_url, once, schedule or feed"),
    ({"triggers": {"once": True}}, {}, "write items.py with create_items"),
    ({"triggers": {"once": True}, "colection": "x"}, {"items": ITEMS}, "did you mean collection?"),
    ({"triggers": {"queue_url": "${NOT_SET_URL}"}}, {"items": ITEMS}, "${NOT_SET_URL} is not set"),
    ({"triggers": {"once": True, "schedule": {"every": "soon"}}}, {"items": ITEMS}, "such as 30m, 6h or 1d"),
]
UNABLE = [
    ({"triggers": {"once": True}}, {"items": "def create_items(:"}, "SyntaxError"),
    ({"triggers": {"once": True}, "collection": "c"}, {"items": ITEMS, "collection": "1/0"}, "ZeroDivisionError"),
    (
        {"triggers": {"once": True}, "collection": "c"},
        {"items": ITEMS, "collection": "def create_collection():\n    return {}"},
        "type is missing",
    ),
    (
        {
            "triggers": {"once": True},
            "generator": {"type": "items:create_items", "requirements": ["stacworker==0.0.0.99"]},
        },
        {"items": ITEMS},
        "stacworker==0.0.0.99",
    ),
    ({"triggers": {"feed": {"type": "own_feed:Feed"}}}, {"items": ITEMS, "own_feed": "1/0"}, "cannot be imported"),
]
BROKEN = [*MISWRITTEN, *UNABLE]


@pytest.mark.parametrize("broken", [MISWRITTEN, UNABLE], ids=["miswritten", "unable"])
async def test_broken_pipelines_stop_the_start(
    folder: Folder, serving: Callable[..., Worker], broken: list[tuple[dict[str, Any], dict[str, str], str]]
) -> None:
    """Exit code 2, and for each a line that says what to do."""
    for number, (settings, files, _) in enumerate(broken):
        folder.add(f"broken-{number}", settings, **files)
    folder.add("good", {"triggers": {"once": [{"id": "good"}]}, "collection": "things"}, items=ITEMS)
    running = serving()
    running.spawn()
    assert await running.ended() == 2
    assert [reason for _, _, reason in broken if reason not in running.log()] == []


async def test_or_it_is_reported_and_the_others_run(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue
) -> None:
    """With on_broken: skip all that are broken are in the log and a metric, and the good one works."""
    for number, (settings, files, _) in enumerate(BROKEN):
        folder.add(f"broken-{number}", settings, **files)
    folder.add("good", {"triggers": {"once": [{"id": "good"}]}, "collection": "things"}, items=ITEMS)
    running = serving(pipelines={"on_broken": "skip"})
    await running.start()
    await catalogue.until_count("things", 1)
    events = {event["pipeline"]: " ".join(event["problems"]) for event in running.events("pipeline.broken")}
    assert sorted(events) == [f"broken-{number}" for number in range(len(BROKEN))]
    assert [reason in events[f"broken-{number}"] for number, (_, _, reason) in enumerate(BROKEN)] == [True] * len(
        BROKEN
    )
    assert (running.metric("pipelines", state="broken"), running.metric("pipelines", state="running")) == (
        len(BROKEN),
        1,
    )
    assert await running.stop() == 0


async def test_conflicting_versions_live_side_by_side(
    folder: Folder, serving: Callable[..., Worker], catalogue: Catalogue
) -> None:
    """Each pipeline has the version of a package that its requirements.txt names, in an environment of its own."""
    for name, version in (("old", "1.16.0"), ("new", "1.17.0")):
        folder.add(
            name,
            {"triggers": {"once": [{"id": name}]}, "collection": "things"},
            items="import six\n" + ITEMS.replace(", **options}", ', "six": six.__version__}'),
            requirements=f"six=={version}\n",
        )
    running = serving()
    await running.start()
    await catalogue.until_count("things", 2)
    found = await catalogue.search(collections=["things"])
    assert {item["id"]: item["properties"]["six"] for item in found} == {"old": "1.16.0", "new": "1.17.0"}
    made = [Path(event["folder"]) for event in running.events("environment.made")]
    files = [path for folder in made for path in folder.rglob("six.py")]
    assert [path.stat().st_nlink for path in files] == [1, 1]  # nothing shared with uv's cache
    assert await running.stop() == 0
    again = serving()
    await again.start()
    assert again.events("environment.made") == []
    assert await again.stop() == 0


async def test_an_environment_that_is_missing_is_not_made_when_it_must_not_be(
    folder: Folder, worker: MakeWorker, tmp_path: Path
) -> None:
    """With install_at_start: false the start ends with what to do."""
    folder.add("needs", {"triggers": {"once": True}}, items=ITEMS, requirements="six==1.16.0")
    running = worker(
        pipelines={"folder": str(folder.path)},
        environments={"folder": str(tmp_path / "none"), "install_at_start": False},
    )
    running.spawn()
    assert await running.ended() == 2
    assert "stacworker pipelines install" in running.log()
