"""What a folder says, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stacworker.errors import ConfigError
from stacworker.pipelines.expand import expand
from stacworker.pipelines.folder import Broken, Pipeline, read_pipeline, read_pipelines
from stacworker.pipelines.loaded import with_pipelines
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


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("self", "&a [*a]", "the top level must be a mapping"),
        ("alias", "triggers: &a {once: [*a]}", "holds itself"),
        (
            "bomb",
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{here}: &{here} [{','.join(f'*{before}' for _ in range(10))}]\n"
                for before, here in zip("abcdef", "bcdefg", strict=True)
            ),
            "more than 50,000 values",
        ),
        ("my data", "triggers: {once: true}", "which is its id"),
        ("x" * 60, "triggers: {once: true}", "at most 59"),
        ("list", "- a", "the top level must be a mapping"),
        ("null", "triggers: null", "triggers"),
        ("digits", "id: 123\ntriggers: {once: true}", "id: "),
    ],
)
def test_odd_files_and_names_are_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Without a traceback, without much memory, and nobody else is kept from running."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "items.py").touch()
    (folder / "pipeline.yaml").write_text(text)
    assert any(told in problem for problem in problems(folder)), problems(folder)


def test_other_odd_folders(tmp_path: Path) -> None:
    """One that is half written is none; a misnamed file and a module named like Python's own are told."""
    add(tmp_path, ".new.part", "items.py")
    add(tmp_path, "shadow", "items.py", "types.py")
    (tmp_path / "misnamed").mkdir()
    (tmp_path / "misnamed" / "pipeline.yml").touch()
    found = {each.id: each for each in read_pipelines(tmp_path, environ={})}
    assert sorted(found) == ["misnamed", "shadow"]
    assert "types.py: rename it" in str(found["shadow"])
    assert "name it pipeline.yaml" in str(found["misnamed"])


def test_one_that_is_switched_off_may_be_broken(tmp_path: Path) -> None:
    """It is no reason not to start."""
    add(tmp_path, "good", "items.py", triggers={"once": True})
    add(tmp_path, "off", "items.py", enabled=False, triggers={"queue_url": "${NOT_SET_URL}"})
    settings = Settings(pipelines={"folder": str(tmp_path)})  # type: ignore[arg-type]
    loaded = with_pipelines(settings, {})
    assert ([each.id for each in loaded.pipelines], loaded.broken) == (["good"], ())


def test_a_broken_one_is_known_by_its_id(tmp_path: Path) -> None:
    """`only` finds it, and what is told is what is wrong with it."""
    add(tmp_path, "folder", "items.py", id="myid", colection="x")
    (found,) = read_pipelines(tmp_path, environ={}, only=["myid"])
    assert isinstance(found, Broken)
    assert "did you mean collection?" in found.problems[0]


def test_a_lock_has_to_hold_what_requirements_name(tmp_path: Path) -> None:
    """What was added to requirements.txt since is asked for, and so missed."""
    folder = add(tmp_path, "a", "items.py", "requirements.lock")
    (folder / "requirements.txt").write_text("attrs>=1  # for x\n\n--no-binary x\nsix\n")
    assert whole(folder).generator.requirements == ("attrs>=1", "six")


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
    found, fitting, clashing = expand(settings, [whole(folder)])
    assert (len(fitting), clashing) == (1, [])
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
    """Of a pipeline and the settings, and of two pipelines: the later one does not run."""
    first, second = add(tmp_path, "a", "items.py"), add(tmp_path, "b", "items.py")
    settings = Settings(generators={"a": {"type": "m:f"}})  # type: ignore[dict-item]
    _, fitting, (clash,) = expand(settings, [whole(first)])
    assert (fitting, "the id 'a' is that of another generator" in clash.problems[0]) == ([], True)
    _, fitting, (clash,) = expand(Settings(), [whole(first), whole(second)])
    assert ([each.id for each in fitting], clash.id, "is used 2 times" in clash.problems[0]) == (["a"], "b", True)


def test_what_pipelines_ask_of_themselves_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Nobody else is called so."""
    first = add(tmp_path, "x", "items.py", triggers={"once": True})
    second = add(tmp_path, "x.own", "items.py")
    _, fitting, clashing = expand(Settings(), [whole(second), whole(first)])
    assert ([each.id for each in fitting], [each.id for each in clashing]) == (["x.own"], ["x"])


def test_a_collections_settings_stand_in_one_place(tmp_path: Path) -> None:
    """Of two pipelines of one collection only one says how it is loaded; none says it for all collections."""
    folders = [
        add(
            tmp_path,
            name,
            "items.py",
            triggers={"once": True},
            collection="c",
            loading={"conflict": conflict},
        )
        for name, conflict in (("a", "error"), ("b", "ignore"))
    ]
    found, fitting, (clash,) = expand(Settings(), [whole(folder) for folder in folders])
    assert ([each.id for each in fitting], found.collection("c").conflict) == (["a"], "error")
    assert "collections.c is set elsewhere too" in clash.problems[0]
    told = problems(add(tmp_path, "d", "items.py", collection="default", loading={"conflict": "error"}))
    assert "`default` stands for all collections" in told[0]
