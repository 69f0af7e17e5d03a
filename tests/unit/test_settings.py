"""Settings: where they come from, and how their mistakes are told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stacworker.config import load_settings
from stacworker.errors import ConfigError
from stacworker.settings import CollectionSettings, Settings

ITEMS = "{name: items, type: load, queue_url: 'https://sqs.us-west-2.amazonaws.com/1/items'}"
REQUESTS = "{name: requests, type: generate, queue_url: 'https://sqs.us-west-2.amazonaws.com/1/requests'}"
NAIP = "{naip: {type: stactools, packages: [stactools-naip==0.5.0]}}"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STACWORKER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a settings file."""

    def write(text: str) -> Path:
        path = tmp_path / "stacworker.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(config: Path | None = None) -> tuple[str, ...]:
    """Return the lines with which these settings are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(config)
    return caught.value.problems


def test_everything_has_a_default():
    """Without a file and variables there are settings, with no consumers."""
    settings = load_settings()

    assert settings.consumers == ()
    assert settings.collection("any") == CollectionSettings()


def test_the_environment_wins_over_the_file(file, monkeypatch):
    """A variable overrides one key of a section and leaves the others of the file."""
    monkeypatch.setenv("STACWORKER_DATABASE__MAX_CONNECTIONS", "3")
    settings = load_settings(file("database: {max_connections: 5, iam_auth: true}"))

    assert (settings.database.max_connections, settings.database.iam_auth) == (3, True)


def test_the_file_may_be_named_by_a_variable(file, monkeypatch):
    """STACWORKER_CONFIG names the file where no option does."""
    monkeypatch.setenv("STACWORKER_CONFIG", str(file("http: {port: 1}")))

    assert load_settings().http.port == 1


def test_lists_come_from_the_environment_as_json(monkeypatch):
    """A container without a file gives its consumers as JSON."""
    monkeypatch.setenv(
        "STACWORKER_CONSUMERS", '[{"name": "a", "type": "load", "queue_url": "http://localhost:4566/0/a"}]'
    )

    assert [consumer.name for consumer in load_settings().consumers] == ["a"]


def test_a_list_that_is_not_json_is_explained(monkeypatch):
    """A variable that holds no JSON is named."""
    monkeypatch.setenv("STACWORKER_CONSUMERS", "items")

    (line,) = problems()
    assert "consumers" in line
    assert 'give JSON, such as [{"name": …}]' in line


def test_sizes_are_read_as_people_write_them(file):
    """Sizes take units."""
    assert load_settings(file("fetch: {max_object_bytes: 64MB}")).fetch.max_object_bytes == 64_000_000


MISTAKES = {
    "htpp: {port: 1}": ["htpp: unknown key; did you mean http?"],
    "http: {prot: 1}": ["http.prot: unknown key; did you mean port?"],
    "http: {port: x}": [
        "http.port: input should be a valid integer, unable to parse string as an integer",
    ],
    "http: {port: 70000}": ["http.port: input should be less than or equal to 65535"],
    f"consumers: [{ITEMS}, {ITEMS}]": [
        "consumers: name 'items' is used 2 times",
        "consumers: queue_url 'https://sqs.us-west-2.amazonaws.com/1/items' is used 2 times",
    ],
    "consumers: [{name: a, queue_url: 'https://s/q'}]": [
        "consumers[0].type: missing: load, generate, an entry point in stacworker.consumers, or module:Class",
    ],
    "consumers: [{name: a, type: load, queue_url: items}]": [
        (
            "consumers[0].queue_url: give the queue's URL, such as "
            "https://sqs.us-west-2.amazonaws.com/123456789012/items"
        ),
    ],
    "consumers: [{name: a b, type: load, queue_url: 'https://s/q'}]": [
        "consumers[0].name: use letters, digits, '.', '_' and '-', at most 63 of them",
    ],
    "consumers: [{name: a, type: load, queue_url: 'https://s/q', output: load}]": [
        "consumers[0]: output belongs to type generate, this consumer has type load",
    ],
    f"consumers: [{REQUESTS}]": ["consumers[requests]: type generate needs an entry in generators"],
    f"consumers: [{{generator: nap, {REQUESTS[1:]}]\ngenerators: {NAIP}": [
        "consumers[requests].generator: no generator 'nap'; there are: naip",
    ],
    "generators: {naip: {type: stactools}}": [
        'generators.naip: type stactools needs packages, such as ["stactools-naip==0.5.0"]',
    ],
    "database: {dsn: 'postgresql://a:hush@b/c', secret_arn: 'arn:x'}": [
        "database: give either dsn or secret_arn, not both",
    ],
    "collections: {default: {create_missing: perhaps}}": [
        (
            "collections.default.create_missing: allowed: false (dead-letter), "
            "true (create a minimal collection), wait (until it exists)"
        ),
    ],
    "collections: {a: {conflict: replace}}": [
        "collections.a.conflict: input should be 'upsert', 'ignore' or 'error'",
    ],
    "- a": ["{file}: the top level must be a mapping, such as `consumers: […]`"],
}


@pytest.mark.parametrize(("text", "lines"), MISTAKES.items())
def test_mistakes_are_told(file, text, lines):
    """Each mistake is a line with the key and what is allowed."""
    path = file(text)

    assert problems(path) == tuple(line.replace("{file}", str(path)) for line in lines)


def test_all_mistakes_are_told_at_once(file):
    """A file with several mistakes is mended in one go."""
    assert len(problems(file("http: {port: -1}\nlog: {level: loud}\ndrain_timeout_s: 0"))) == 3


def test_a_file_that_is_not_yaml_is_named(file):
    """A syntax error names the file and the place."""
    path = file("http: {port: 1")

    (line,) = problems(path)
    assert line.startswith(f"{path} is not YAML: ")
    assert "line 1" in line


def test_a_missing_file_is_named(tmp_path):
    """A file that is not there is an error, not an empty one."""
    (line,) = problems(tmp_path / "no.yaml")

    assert line.startswith(f"cannot read settings from {tmp_path / 'no.yaml'}: ")


def test_unknown_variables_are_mistakes(monkeypatch):
    """A misspelt variable is refused instead of doing nothing."""
    monkeypatch.setenv("STACWORKER_HTPP__PORT", "1")

    assert problems() == ("STACWORKER_HTPP__PORT: unknown variable; did you mean STACWORKER_HTTP?",)


def test_no_secret_stands_in_a_mistake(file):
    """A DSN is never repeated, whatever is wrong with it."""
    path = file("database: {dsn: ['postgresql://me:hush@db/stac']}")

    assert "hush" not in "".join(problems(path))


def test_a_collection_overlays_the_default(file):
    """A collection's own entry wins key by key over `default`, which wins over what is built in."""
    settings = load_settings(
        file(
            "collections: {default: {max_batch_items: 7, conflict: ignore}, s2: {max_concurrency: 2, conflict: error}}"
        )
    )

    assert settings.collection("s2") == CollectionSettings(max_batch_items=7, max_concurrency=2, conflict="error")
    assert settings.collection("other") == CollectionSettings(max_batch_items=7, conflict="ignore")


@given(st.sets(st.sampled_from(["max_batch_items", "max_batch_wait_s", "max_concurrency"])), st.integers(1, 9))
def test_only_what_is_set_overlays(keys, value):
    """Whatever keys a collection sets, the others are those of `default`."""
    default = {"max_batch_items": 11, "max_batch_wait_s": 12, "max_concurrency": 13}
    own = dict.fromkeys(keys, value)
    settings = Settings(collections={"default": default, "own": own})

    assert settings.collection("own") == CollectionSettings(**default | own)


@given(st.text(min_size=1, max_size=70))
def test_names_are_fit_for_labels(name):
    """A consumer's name is either refused or short and plain enough for metrics and logs."""
    try:
        settings = Settings(consumers=[{"name": name, "type": "load", "queue_url": "https://s/q"}])
    except ValidationError:
        return
    assert len(settings.consumers[0].name) <= 63
    assert settings.consumers[0].name.isascii()


def test_a_batch_that_cannot_fill_is_warned_about(file):
    """Fewer messages in flight than a batch holds is allowed, and probably not meant."""
    settings = load_settings(file(f"consumers: [{{max_in_flight: 10, {ITEMS[1:]}]"))

    assert settings.warnings() == [
        (
            "collections.default.max_batch_items is 500, but consumer 'items' holds only max_in_flight=10 messages: "
            "a batch of single-item messages never fills"
        ),
    ]


@pytest.mark.parametrize(
    ("consumers", "loads"),
    [
        (f"[{ITEMS}]", True),
        (f"[{REQUESTS}]", True),
        (f"[{{output: 's3://bucket/items/', {REQUESTS[1:]}]", False),
        ("[{name: own, type: 'my:Consumer', queue_url: 'https://s/q'}]", False),
    ],
)
def test_who_needs_the_database(file, consumers, loads):
    """Only consumers whose items go into pgstac need the database."""
    assert load_settings(file(f"consumers: {consumers}\ngenerators: {NAIP}")).loads is loads


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("output: 'sqs:https://s/q', output_overflow: 's3://b/large/'", None),
        ("output: 'sns:arn:aws:sns:r:1:t', output_overflow: 's3://b/'", None),
        ("output: 's3://b/', output_format: ndjson", None),
        ("output: 's3://b/', output_overflow: 's3://b/large/'", "output_overflow belongs to an sns: or sqs: output"),
        ("output_overflow: 's3://b/large/'", "this output is load"),
        ("output: 'sqs:https://s/q', output_overflow: 's3://b/large'", "such as s3://bucket/prefix/"),
        ("output: 'sqs:https://s/q', output_overflow: '/large/'", "such as s3://bucket/prefix/"),
        ("output: 'sqs:https://s/q', output_format: ndjson", "output_format belongs to an s3:// output"),
        ("output: 's3://b/', output_format: parquet", "'item' or 'ndjson'"),
    ],
)
def test_keys_belong_to_their_output(file, keys, problem):
    """A key that would have no effect is a mistake, told at start."""
    read = file(f"consumers: [{{{keys}, {REQUESTS[1:]}]\ngenerators: {NAIP}")
    if problem is None:
        load_settings(read)
    else:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            load_settings(read)


@pytest.mark.parametrize("key", ["output_overflow: 's3://b/'", "output_format: ndjson"])
def test_load_consumers_have_no_output(file, key):
    """Keys of generate consumers are refused there."""
    with pytest.raises(ConfigError, match="belongs to type generate"):
        load_settings(file(f"consumers: [{{{key}, {ITEMS[1:]}]"))


@pytest.mark.parametrize(
    "name",
    [
        "STACWORKER_SERVICE_HOST",
        "STACWORKER_PORT",
        "STACWORKER_PORT_8080_TCP_ADDR",
        "STACWORKER_METRICS_SERVICE_PORT_HTTP",
    ],
)
def test_kubernetes_service_links_are_not_settings(monkeypatch, name):
    """A Service named stacworker adds variables to its pods; they stop nobody's start."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:8080")

    assert load_settings().http == Settings().http


def test_a_drain_shorter_than_a_receive_is_questioned(file):
    """A long poll that outlives the drain would hide what it brings."""
    settings = load_settings(file(f"{{drain_timeout_s: 5, consumers: [{ITEMS}]}}"))

    (warning,) = settings.warnings()
    assert "wait_time_s=20 is longer than drain_timeout_s=5" in warning
