"""Files and standard input become messages."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.ops import outgoing
from stacworker.ops.outgoing import Outgoing, Unsent, read_messages


def test_a_json_file_is_one_message(tmp_path):
    """A `.json` file goes as it is, line breaks and all."""
    file = tmp_path / "item.json"
    file.write_text('{\n  "id": "ü"\n}\n', encoding="utf-8")

    assert list(read_messages([file])) == [Outgoing(str(file), '{\n  "id": "ü"\n}\n', 17)]


def test_other_files_hold_a_message_a_line(tmp_path):
    """Each line is a message named by its number; empty lines are none, the last needs no end."""
    file = tmp_path / "items.ndjson"
    file.write_bytes(b'{"id": 1}\r\n\n{"id": 2}')

    assert list(read_messages([file])) == [
        Outgoing(f"{file}:1", '{"id": 1}', 9),
        Outgoing(f"{file}:3", '{"id": 2}', 9),
    ]


def test_a_dash_is_standard_input(monkeypatch):
    """`-` reads messages from standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))

    assert list(read_messages([Path("-")])) == [Outgoing("-:1", "a", 1), Outgoing("-:2", "b", 1)]


def test_what_cannot_be_sent_is_named(tmp_path, monkeypatch):
    """A line that SQS would refuse, with its whole batch, is told with its place; the others go."""
    monkeypatch.setattr(outgoing, "MAX_MESSAGE_BYTES", 20)
    file = tmp_path / "items.ndjson"
    file.write_bytes(b"first\n" + b"x" * 21 + b"\n" + b"y" * 100 + b"\n\xff\n\x00\nlast\n")

    assert list(read_messages([file])) == [
        Outgoing(f"{file}:1", "first", 5),
        Unsent(f"{file}:2", "larger than the 20 bytes that SQS takes: put it in S3, send its URL"),
        Unsent(f"{file}:3", "larger than the 20 bytes that SQS takes: put it in S3, send its URL"),
        Unsent(f"{file}:4", "not UTF-8 at byte 0: convert it"),
        Unsent(f"{file}:5", "holds the character U+0000, which SQS refuses"),
        Outgoing(f"{file}:6", "last", 4),
    ]


def test_files_that_cannot_be_read_are_named(tmp_path):
    """A missing or empty file costs only itself."""
    empty = tmp_path / "empty.json"
    empty.touch()
    file = tmp_path / "items"
    file.write_text("a")

    assert list(read_messages([tmp_path / "no.json", empty, file])) == [
        Unsent(str(tmp_path / "no.json"), "cannot be read: No such file or directory"),
        Unsent(str(empty), "empty: SQS takes no empty message"),
        Outgoing(f"{file}:1", "a", 1),
    ]


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_characters_that_sqs_refuses(tmp_path, character):
    """The characters outside SQS's set are found before they cost a batch."""
    file = tmp_path / "items.json"
    file.write_text(f"a{character}", encoding="utf-8")

    assert list(read_messages([file])) == [
        Unsent(str(file), f"holds the character U+{ord(character):04X}, which SQS refuses")
    ]


@given(st.lists(st.binary(max_size=40)))
def test_every_line_comes_out_once(lines):
    """Whatever bytes a file holds, every line that is not blank comes out once, in order, sent or told."""
    data = b"\n".join(line.replace(b"\n", b"") for line in lines)
    expected = [number for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]

    found = list(outgoing._lines(io.BytesIO(data), "f"))

    assert [each.origin for each in found] == [f"f:{number}" for number in expected]
