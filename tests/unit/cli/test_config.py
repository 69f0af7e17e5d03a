"""`stacworker config`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stacworker.cli.config import masked
from stacworker.cli.example import example
from stacworker.config import load_settings
from stacworker.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "stacworker.yaml"


def uncommented(text: str) -> str:
    """Return the example with every setting in force: `#key` loses its mark, prose (`# …`) keeps it."""
    return re.sub(r"(?m)^(\s*)#(?=\S)", r"\1", text)


def test_the_example_in_the_repository_is_in_step(run):
    """`examples/stacworker.yaml` is what `stacworker config example` prints: write it there again."""
    assert run("config", "example").out == EXAMPLE.read_text(encoding="utf-8")


def test_the_example_is_valid_as_it_is():
    """The example can be run as it stands, and names only the settings that have no default."""
    settings = load_settings(EXAMPLE)

    assert [(consumer.name, consumer.type) for consumer in settings.consumers] == [
        ("items", "load"),
        ("requests", "generate"),
    ]
    assert settings.http == Settings().http


def test_the_example_is_valid_with_every_setting_in_force(tmp_path):
    """All that is commented out are the defaults: putting it in force changes nothing."""
    file = tmp_path / "all.yaml"
    file.write_text(uncommented(example()))

    assert load_settings(file).model_dump() == load_settings(EXAMPLE).model_dump()


def test_the_example_tells_about_every_setting():
    """No key of any section is missing from the example."""
    shown = yaml.safe_load(uncommented(example()))
    schema = Settings.model_json_schema()

    assert set(shown) == set(schema["properties"])
    assert set(shown["consumers"][0]) | set(shown["consumers"][1]) == set(
        schema["$defs"]["ConsumerSettings"]["properties"]
    ) - {"options"}
    assert set(shown["collections"]["default"]) == set(schema["$defs"]["CollectionSettings"]["properties"])
    assert set(shown["generators"]["stactools-naip"]) == set(schema["$defs"]["GeneratorSettings"]["properties"])


def test_show_lays_the_environment_over_the_file(run, tmp_path, monkeypatch):
    """`config show` prints the settings in force, in YAML that could be read back."""
    file = tmp_path / "stacworker.yaml"
    file.write_text("http: {port: 1, host: 127.0.0.1}")
    monkeypatch.setenv("STACWORKER_HTTP__PORT", "9000")

    ran = run("config", "show", "--config", file)

    assert (ran.code, ran.err) == (0, "")
    assert yaml.safe_load(ran.out)["http"] == {"host": "127.0.0.1", "port": 9000, "enabled": True}


def test_show_masks_secrets(run, tmp_path):
    """No secret is shown: neither the DSN nor what in a plugin's options sounds like one."""
    file = tmp_path / "stacworker.yaml"
    file.write_text(
        "database: {dsn: 'postgresql://me:hush@db/stac'}\n"
        "consumers: [{name: mine, type: 'my:Consumer', queue_url: 'https://sqs/1/q',"
        " options: {client: {api_key: hush, user: me}}}]\n"
    )

    ran = run("config", "show", "--json", "--config", file)

    values = json.loads(ran.out)
    assert "hush" not in ran.out
    assert values["database"]["dsn"] == "**********"
    assert values["consumers"][0]["options"] == {"client": {"api_key": "**********", "user": "me"}}


@pytest.mark.parametrize(
    ("key", "hidden"),
    [("password", True), ("client_secret", True), ("API_KEY", True), ("token", True), ("secret_arn", False)],
)
def test_what_is_masked(key, hidden):
    """Keys that end in a word for a secret are masked, names of secrets are not."""
    assert masked({key: "x"}) == {key: "**********" if hidden else "x"}


@given(st.recursive(st.text() | st.integers(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)))
def test_nothing_below_a_secret_key_shows(value):
    """However a secret is nested, none of its text is shown."""
    shown = json.dumps(masked({"password": {"deep": [value, "hush"]}}))

    assert "hush" not in shown


def test_the_schema_describes_every_setting(run):
    """`config schema` is a JSON schema with a description of each setting."""
    schema = json.loads(run("config", "schema").out)

    assert schema["properties"]["drain_timeout_s"]["description"].startswith("After SIGTERM")
    assert schema["additionalProperties"] is False
