"""ItemRequests' arguments and options as a click command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from stacworker.generate.child.command_line import arguments


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-v", "--verbose", count=True)
@click.option("--validate/--no-validate", default=True)
@click.option("--usgs_geometry", is_flag=True)
@click.option("-t", "--tag", multiple=True)
@click.option("--size", nargs=2, type=int)
@click.option("--point", nargs=2, multiple=True)
@click.option("--asset-prefix")
@click.option("--strict", type=bool)
def create_item(**values: Any) -> None:
    """Take every kind of parameter."""


def line(options: dict[str, Any], *args: str) -> list[str]:
    return arguments(create_item, "group create-item", list(args or ("a.tif", "b.json")), options, Path("out"))[2:]


def destination(command: click.Command, out: Path, *args: str, **options: Any) -> list[str]:
    return arguments(command, "group create-item", list(args), options, out)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"asset-prefix": "s3://x"}, ["--asset-prefix", "s3://x"]),
        ({"asset_prefix": "s3://x"}, ["--asset-prefix", "s3://x"]),
        ({"--asset-prefix": "s3://x"}, ["--asset-prefix", "s3://x"]),
        ({"usgs-geometry": True}, ["--usgs_geometry"]),
        ({"asset-prefix": None}, []),
        ({"asset-prefix": ""}, ["--asset-prefix", ""]),
        ({"asset-prefix": "-1"}, ["--asset-prefix", "-1"]),
        ({"validate": True}, ["--validate"]),
        ({"validate": ""}, ["--validate"]),
        ({"validate": None}, ["--validate"]),
        ({"validate": "true"}, ["--validate"]),
        ({"validate": False}, ["--no-validate"]),
        ({"validate": "false"}, ["--no-validate"]),
        ({"no-validate": ""}, ["--no-validate"]),
        ({"no-validate": False}, ["--validate"]),
        ({"usgs_geometry": False}, []),
        ({"verbose": 3}, ["--verbose"] * 3),
        ({"v": True}, ["-v"]),
        ({"tag": ["a", "b"]}, ["--tag", "a", "--tag", "b"]),
        ({"t": "a"}, ["-t", "a"]),
        ({"tag": []}, []),
        ({"size": [64, 32]}, ["--size", "64", "32"]),
        ({"point": [[1, 2.5], [3, 4]]}, ["--point", "1", "2.5", "--point", "3", "4"]),
        ({"strict": True}, ["--strict", "true"]),
    ],
)
def test_options_become_what_the_command_takes(options: dict[str, Any], expected: list[str]) -> None:
    """Values, flags, repeated options and options of several values, each as the command declares it."""
    assert line(options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "No such option '--colour'."),
        ({"usgs_geometry": "maybe"}, "--usgs_geometry is a flag: expected true or false, not 'maybe'"),
        ({"asset-prefix": ["a", "b"]}, "--asset-prefix takes 1 value(s), not 2"),
        ({"size": 64}, "--size takes 2 value(s), not 1"),
        ({"asset-prefix": {"a": 1}}, "--asset-prefix cannot have the value {'a': 1}"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(options: dict[str, Any], message: str) -> None:
    """The error names the option, and what it takes."""
    with pytest.raises(click.UsageError) as caught:
        line(options)
    assert caught.value.format_message() == message


def test_a_destination_is_given_where_the_command_wants_one_more(tmp_path: Path) -> None:
    """As StactoolsItemGenerator did: the last positional argument is where the item goes."""
    assert destination(create_item, tmp_path, "a.tif", tag="x") == [
        "a.tif", "--tag", "x", str(tmp_path / "item.json")
    ]  # fmt: skip


def test_a_destination_in_the_request_stays(tmp_path: Path) -> None:
    """Whoever names all arguments gets no other."""
    assert destination(create_item, tmp_path, "a.tif", "b.json") == ["a.tif", "b.json"]


def test_a_missing_source_is_left_to_the_command_to_complain_about(tmp_path: Path) -> None:
    """The destination does not take the place of an argument that was forgotten."""
    assert destination(create_item, tmp_path) == []


@pytest.mark.parametrize(
    ("parameters", "args", "expected"),
    [
        ([click.Argument(["src"]), click.Argument(["anything"])], ["a"], ["a", "{out}/item.json"]),
        ([click.Argument(["href"])], [], []),
        ([click.Argument(["href"]), click.Argument(["asset_key"], default="data")], ["a"], ["a"]),
        ([click.Argument(["src"]), click.Argument(["out_dir"])], ["a"], ["a", "{out}"]),
        ([click.Argument(["src"]), click.Argument(["dst"], required=False)], ["a"], ["a", "{out}/item.json"]),
        (
            [click.Argument(["src"]), click.Argument(["dst"], type=click.Path(file_okay=False))],
            ["a"],
            ["a", "{out}"],
        ),
        ([click.Argument(["src"]), click.Argument(["dst"], type=click.Path(exists=True))], ["a"], ["a", "{out}"]),
        (
            [click.Argument(["src"]), click.Argument(["dst"], type=click.Path(exists=True, dir_okay=False))],
            ["a"],
            ["a", "{out}/item.json"],
        ),
        (
            [click.Option(["-m", "--mtl"], required=True), click.Option(["-o", "--output"], required=True)],
            ["-m", "a"],
            ["-m", "a", "--output", "{out}/item.json"],
        ),
        (
            [click.Option(["-m", "--mtl"], required=True), click.Option(["-o", "--output"], required=True)],
            ["-m", "a", "-o", "b"],
            ["-m", "a", "-o", "b"],
        ),
        ([click.Argument(["src"]), click.Option(["--output"])], ["a"], ["a"]),
        (
            [click.Argument(["srcs"], nargs=-1), click.Argument(["dst"])],
            ["a", "b"],
            ["a", "b", "{out}/item.json"],
        ),
    ],
)
def test_destinations_are_recognised(
    tmp_path: Path, parameters: list[click.Parameter], args: list[str], expected: list[str]
) -> None:
    """By position, name and type: a file, a folder that exists, an option, or none."""
    given = destination(click.Command("create-item", params=parameters), tmp_path, *args)
    assert given == [part.replace("{out}", str(tmp_path)) for part in expected]
