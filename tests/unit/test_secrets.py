"""No text for people repeats a secret: not the mistakes of settings, nor reasons, logs and what commands print."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from stacworker import log
from stacworker.cli.config import masked
from stacworker.config import load_settings
from stacworker.errors import ConfigError, Permanent
from stacworker.redaction import redacted

SECRET = "hUnt-er2"
DSN = f"postgresql://user:{SECRET}@host/db"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"at {DSN}: no", "at postgresql://…@host/db: no"),
        ("postgresql://u:a@b@h/d", "postgresql://…@h/d"),
        ("GET https://b.s3.amazonaws.com/k?X-Amz-Signature=ab%3D&x=1", "GET https://b.s3.amazonaws.com/k?X-Amz-Signature=…&x=1"),
        ("https://a.blob.core.windows.net/c?sv=1&sig=ab%3D", "https://a.blob.core.windows.net/c?sv=1&sig=…"),
        ("host=h password='a b' dbname=d", "host=h password=… dbname=d"),
        ("AWS_SESSION_TOKEN=abc", "AWS_SESSION_TOKEN=…"),
        ("host:h\nx-amz-security-token:abc\n\nhost", "host:h\nx-amz-security-token:…\n\nhost"),
        ("Authorization: Basic abc=", "Authorization:…"),
        ("database.secret_arn: the secret has no host", "database.secret_arn: the secret has no host"),
        ("s3://bucket/me@home", "s3://bucket/me@home"),
        ("https://host/a?monkey=1 me@home", "https://host/a?monkey=1 me@home"),
        ("no key=1 here", "no key=1 here"),
    ],
)  # fmt: skip
def test_credentials_are_taken_out_of_texts(text: str, expected: str) -> None:
    """What stands before the @ of a URL, and parameters that sound like secrets; nothing else."""
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text", ["a" * 400_000, "token" * 80_000, "://" * 130_000, "://a" * 100_000, " token" * 60_000]
)
def test_hostile_texts_take_no_time(text: str) -> None:
    """Whoever sends messages chooses some of what errors quote: the time is linear in its length."""
    started = time.process_time()
    redacted(text)
    assert time.process_time() - started < 10  # quadratic, it would be minutes


def test_reasons_hold_no_credentials() -> None:
    """Whatever a reason quotes, it is redacted where it is made: for logs, dead letters, /readyz and commands."""
    error = Permanent(f"HTTPError: 403 for https://me:{SECRET}@host/?token={SECRET}")
    assert (str(error), error.reason) == ("HTTPError: 403 for https://…@host/?token=…",) * 2
    assert ConfigError(f"see {DSN}", "two").problems == ("see postgresql://…@host/db", "two")
    assert str(ConfigError(f"see {DSN}", "two")) == "see postgresql://…@host/db\ntwo"


@pytest.fixture
def logs() -> Iterator[None]:
    """Put logging back."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_logs_hold_no_credentials(form: str, logs: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in fields, texts of libraries or tracebacks, in either form."""
    log.configure("debug", form)  # type: ignore[arg-type]
    try:
        int(DSN)
    except ValueError:
        structlog.get_logger().exception("some.event", url=f"https://host/?sig={SECRET}")
        logging.getLogger("library").exception("no %s", DSN)
    text = capsys.readouterr().err
    assert text.count("postgresql://…@host/db") >= 3
    assert "https://host/?sig=…" in text
    assert SECRET not in text


MISPLACED = {
    f"database: {DSN}": "database: input should be a valid dictionary or instance of DatabaseSettings",
    f"database: {{{DSN}}}": "database.…: unknown key; allowed: dsn",
    f"database: {{{SECRET * 10}}}": "database.…: unknown key; allowed: dsn",
    f"database: {{password: {SECRET}}}": "database.password: unknown key; allowed: dsn",
    f"database: {{dsn: [{SECRET}]}}": "database.dsn: input should be a valid string",
    f"database: {{secret_arn: {{password: {SECRET}}}}}": "database.secret_arn: input should be a valid string",
    f"database: {{max_connections: {SECRET}}}": "database.max_connections: input should be a valid integer",
    f"http: {{port: {SECRET}}}": "http.port: input should be a valid integer",
    f"aws: {SECRET}": "aws: input should be a valid dictionary",
    f"aws: {{secret_access_key: {SECRET}}}": "aws.secret_access_key: unknown key; allowed: endpoint_url, region",
    f"consumers: {DSN}": "consumers: input should be a valid tuple",
    f"consumers: [{{name: {SECRET}@, type: load, queue_url: 'https://s/q'}}]": "consumers[0].name: use letters, digits",
    f"consumers: [{{name: a, type: load, queue_url: '{DSN}'}}]": "consumers[0].queue_url: give the queue's URL",
    f"generators: {{g: {{type: 'a:b', options: {SECRET}}}}}": "generators.g.options: input should be a valid dict",
    f"generators: {{g: {{type: 'a:b', env: {{TOKEN: {SECRET}}}}}}}": "generators.g.env: input should be a valid tuple",
    f"database: {{dsn: '{DSN}'": "{file} is not YAML: line 1, column ",
    f"database: {{dsn: *{SECRET}}}": "{file} is not YAML: line 1, column 17: found undefined alias …",
    f"database: {{dsn: !{SECRET} x}}": "{file} is not YAML: line 1, column 17: could not determine a constructor",
    f"database: {{dsn: @{SECRET}}}": "{file} is not YAML: line 1, column 17: found character '@' that cannot start",
    f"database: {{dsn: {SECRET}\0}}": "{file} is not YAML: it holds a character that YAML does not allow",
    f"database: {{dsn: !!int {SECRET}}}": "{file} is not YAML that can be read: ValueError",
    SECRET: "{file}: the top level must be a mapping",
}


@pytest.mark.parametrize(("text", "line"), MISPLACED.items())
def test_a_secret_in_the_wrong_place_of_the_file_is_not_told(text: str, line: str, tmp_path: Path) -> None:
    """The line names the key or the place, and repeats nothing of what stands there."""
    path = tmp_path / "stacworker.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    (problem,) = caught.value.problems
    assert problem.startswith(line.replace("{file}", str(path)))
    assert SECRET not in problem


@pytest.mark.parametrize(
    "name",
    ["DATABASE", "DATABASE__PASSWORD", "DATABASE__DSN__X", "AWS", "HTTP__PORT", "CONSUMERS", "DSN", "LOG__LEVEL"],
)
def test_a_secret_in_the_wrong_variable_is_not_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its value, nor a part of it."""
    monkeypatch.setenv(f"STACWORKER_{name}", DSN)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_shown_settings_mask_what_sounds_or_looks_like_a_secret() -> None:
    """By key, and in URLs under any key."""
    options = {
        "dsn": SECRET, "database_url": DSN, "client": {"account_key": [SECRET]}, "authorization": SECRET,
        "conninfo": f"host=h password={SECRET}", "hosts": [DSN],
    }  # fmt: skip
    shown = masked(options)
    assert SECRET not in json.dumps(shown)
    assert shown["database_url"] == "postgresql://…@host/db"
    assert shown["hosts"] == ["postgresql://…@host/db"]


def test_settings_hide_the_dsn() -> None:
    """Printed settings, as in a debugger or an assertion, show no DSN."""
    os.environ["STACWORKER_DATABASE__DSN"] = DSN
    try:
        settings = load_settings()
    finally:
        del os.environ["STACWORKER_DATABASE__DSN"]
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()
