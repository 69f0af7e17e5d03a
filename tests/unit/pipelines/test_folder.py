"""What a folder says, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stacworker.errors import ConfigError
from stacworker.pipelines.expand import expand
from stacworker.pipelines.folder import Broken, Pipeline, read_pipeline, read_pipelines
from stacworker.settings import Settings

URL = "https://sqs.us-west-2.amazonaws.com/123456789012/items"


def add(parent: Path, name: str, *files: str, **settings: Any) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"triggers": {"queue_url": URL}, **settings}))
    return folder


def whole(folder: Path, environ: dict[str, str] | None = None) -> Pipeline:
    found = read_pipeline(folder, environ={} if environ is None else environ)
    assert isinstance(found, Pipeline), found
    return found


def problems(folder: Path) -> tuple[str, ...]:
    found = read_pipeline(folder, environ={})
    assert isinstance(found, Broken), found
    return found.problems


def test_what_lies_in_the_folder_need_not_be_named(tmp_path: Path) -> None:
    """items.py, inventory.py, collection.py and requirements.txt are found by their names."""
    folder = add(tmp_path, "a", "items.py", "inventory.py", "collection.py", "requirements.txt")
    found = whole(folder)
    assert (found.id, found.inventory, found.collection_source) == (
        "a",
        "inventory:create_requests",
        "collection:create_collection",
    )
    assert (found.generator.type, found.generator.path) == ("items:create_items", (str(folder),))
    assert found.generator.requirements_file == str(folder / "requirements.txt")


def test_a_lock_and_a_collections_file_come_first(tmp_path: Path) -> None:
    """requirements.lock before requirements.txt, collection.json before collection.py."""
    folder = add(tmp_path, "a", "items.py", "collection.py", "collection.json", "requirements.txt", "requirements.lock")
    found = whole(folder)
    assert found.collection_source == folder / "collection.json"
    assert found.generator.requirements_file == str(folder / "requirements.lock")


def test_variables_are_filled_in(tmp_path: Path) -> None:
    """${NAME}, ${NAME:-default} and $$, in every text at any depth."""
    folder = add(
        tmp_path,
        "a",
        "items.py",
        triggers={"queue_url": "${HERE}/${NAME:-items}"},
        description="$$5 for ${NAME:-items}",
        generator={"type": "items:create_items", "options": {"deep": [{"er": "${HERE}"}]}},
    )
    found = whole(folder, {"HERE": "https://sqs.example"})
    assert found.settings.triggers.queue_url == "https://sqs.example/items"
    assert found.settings.description == "$5 for items"
    assert found.generator.options == {"deep": [{"er": "https://sqs.example"}]}


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """All that are missing are told at once; without an environment they are only "unset"."""
    folder = add(tmp_path, "a", "items.py", triggers={"queue_url": "${A_URL}"}, description="${B}")
    assert sorted(line.rpartition(": ")[2] for line in problems(folder)) == [
        "${A_URL} is not set in the environment",
        "${B} is not set in the environment",
    ]
    found = read_pipeline(folder, environ=None)
    assert isinstance(found, Pipeline)
    assert found.settings.description == "unset"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"triggers": {"queue": URL}}, "triggers.queue: unknown key; did you mean queue_url?"),
        ({"limits": {"max_inflight": 1}}, "limits.max_inflight: unknown key; did you mean max_in_flight?"),
        ({"generator": {"type": "a:b", "timeout": 1}}, "generator.timeout: unknown key; did you mean timeout_s?"),
        ({"triggers": {"schedule": {"every": "1 week"}}}, "such as 30m, 6h or 1d"),
        ({"triggers": {"schedule": {"every": "1h"}}}, "give requests, or write inventory.py"),
        ({"collection": {"id": "c", "file": "a.json", "function": "a:b"}}, "either file or function"),
        ({"collection": {"id": "c", "file": "gone.json"}}, "is not there"),
        ({"loading": {"max_concurrency": 2}}, "loading: name the collection too"),
        ({"output": "ftp://x"}, "output: allowed: load, sns:TOPIC_ARN"),
        ({"output_overflow": "s3://b/"}, "output_overflow belongs to an sns: or sqs: output"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    """With the file's path, the key, and what is wrong or allowed."""
    (line,) = problems(add(tmp_path, "a", "items.py", **settings))
    assert line.startswith(str(tmp_path / "a" / "pipeline.yaml"))
    assert told in line


def test_secrets_are_not_repeated(tmp_path: Path) -> None:
    """A mistake's line names the key and never the value."""
    (line,) = problems(add(tmp_path, "a", "items.py", limits={"max_in_flight": "hunter2"}))
    assert "hunter2" not in line


def test_folders_without_a_pipeline_are_no_pipelines(tmp_path: Path) -> None:
    """Only those with a pipeline.yaml count; one of them must be there."""
    add(tmp_path, "b", "items.py")
    add(tmp_path, "a", "items.py")
    (tmp_path / "notes").mkdir()
    assert [each.id for each in read_pipelines(tmp_path, environ={})] == ["a", "b"]
    assert [each.id for each in read_pipelines(tmp_path, environ={}, only=["b"])] == ["b"]
    with pytest.raises(ConfigError, match="no pipeline c; there are: a, b"):
        read_pipelines(tmp_path, environ={}, only=["c"])
    with pytest.raises(ConfigError, match="no folder in"):
        read_pipelines(tmp_path / "notes", environ={})
    with pytest.raises(ConfigError, match="is no folder"):
        read_pipelines(tmp_path / "gone", environ={})


def test_two_of_one_id_are_told_apart(tmp_path: Path) -> None:
    """The second is broken, and says whose id it has."""
    add(tmp_path, "a", "items.py", id="same")
    add(tmp_path, "b", "items.py", id="same")
    first, second = read_pipelines(tmp_path, environ={})
    assert isinstance(first, Pipeline)
    assert isinstance(second, Broken)
    assert "that of" in second.problems[0]


def test_a_pipeline_becomes_consumers_a_generator_and_a_collection(tmp_path: Path) -> None:
    """What it asks of itself goes through a queue in memory; nobody else's requests reach its generator."""
    folder = add(
        tmp_path,
        "a",
        "items.py",
        triggers={"queue_url": URL, "once": True},
        collection="things",
        loading={"max_concurrency": 3},
        limits={"max_in_flight": 7},
        output_format="item",
    )
    own = {"name": "own", "type": "generate", "queue_url": URL + "2"}
    settings = Settings(consumers=(own,), generators={"mine": {"type": "m:f"}})  # type: ignore[arg-type]
    found = expand(settings, [whole(folder)])
    assert [
        (each.name, each.queue_url, each.generators, each.collection, each.max_in_flight) for each in found.consumers
    ] == [
        ("own", URL + "2", ("mine",), None, 2000),
        ("a", URL, ("a",), "things", 7),
        ("a.own", "memory:a", ("a",), "things", 7),
    ]
    assert list(found.generators) == ["mine", "a"]
    assert found.collection("things").max_concurrency == 3


def test_names_and_queues_are_used_once(tmp_path: Path) -> None:
    """Of a pipeline and the settings, and of two pipelines."""
    first, second = add(tmp_path, "a", "items.py"), add(tmp_path, "b", "items.py")
    settings = Settings(generators={"a": {"type": "m:f"}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="the id 'a' is that of an entry in generators too"):
        expand(settings, [whole(first)])
    with pytest.raises(ConfigError, match=r"queue_url .* is used 2 times"):
        expand(Settings(), [whole(first), whole(second)])
