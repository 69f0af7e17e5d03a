"""Items from stactools packages: a real one, and a made-up one that does everything differently."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from stacworker.api import Request, Version
from stacworker.errors import ConfigError, Permanent, Transient
from stacworker.generate.recipe import Limits
from stacworker.generate.stactools import StactoolsGenerator
from stacworker.metrics import Metrics

ODD_COMMANDS = """
import json, os, sys
import click, pystac, datetime
from stactools.cli.registry import Registry

def item(id, **properties):
    return pystac.Item(id, None, None, datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), properties)

def create_groups(cli):
    @cli.group("odd-file")
    def odd_file():
        pass

    @odd_file.command("create-item")
    @click.argument("source")
    @click.argument("destination")
    @click.option("--validate/--no-validate", default=True)
    @click.option("--thumbs", is_flag=True)
    @click.option("--tag", multiple=True)
    def to_file(source, destination, validate, thumbs, tag):
        print("working on", source)
        with open(destination, "w") as file:
            json.dump(item(source, validate=validate, thumbs=thumbs, tags=list(tag)).to_dict(), file)

    @odd_file.command("destroy-item")
    @click.argument("source")
    def destroy(source):
        raise AssertionError("a message reached this")

    @cli.group("odd-print")
    def odd_print():
        pass

    @odd_print.command("create-item")
    @click.argument("href")
    def to_output(href):
        click.echo("working on it")
        json.dump(item(href).to_dict(), sys.stdout)

    @cli.group("odd-folder")
    def odd_folder():
        pass

    @odd_folder.command("create-item")
    @click.argument("source")
    @click.argument("dst", type=click.Path(exists=True, file_okay=False))
    def to_folder(source, dst):
        for number in range(2):
            with open(os.path.join(dst, f"{number}.json"), "w") as file:
                json.dump(item(f"{source}-{number}").to_dict(), file)
        with open(os.path.join(dst, "collection.json"), "w") as file:
            json.dump({"type": "Collection"}, file)

    @cli.group("odd-save")
    def odd_save():
        pass

    @odd_save.command("create-item")
    @click.argument("source")
    @click.argument("dst")
    def saves(source, dst):
        for id in ("one", "two", "one"):
            made = item(id, source=source)
            made.set_self_href(os.path.join(dst, id + ".json"))
            made.save_object()

    @cli.group("odd-nothing")
    def odd_nothing():
        pass

    @odd_nothing.command("create-item")
    @click.argument("mode")
    def nothing(mode):
        if mode == "refuse":
            raise click.ClickException("this scene is too old")
        if mode == "exit":
            sys.exit(3)
        print("nothing to do in", os.getcwd())
"""


def install(site: Path, name: str, version: str, module: str, init: str, **modules: str) -> None:
    """Put a stactools package in a folder, as pip would."""
    files = {f"stactools/{module}/__init__.py": init}
    files |= {f"stactools/{module}/{name}.py": text for name, text in modules.items()}
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Make a folder with an odd package, and one beside it that must never be imported."""
    register = "def register_plugin(registry):\n    from stactools.oddities import commands\n"
    register += "    registry.register_subcommand(commands.create_groups)\n"
    install(tmp_path / "site", "stactools-odd", "1.2.0", "oddities", register, commands=ODD_COMMANDS)
    install(tmp_path / "site", "stactools-other", "1.0.0", "other", "raise RuntimeError('imported')\n")
    return tmp_path / "site"


def generator(*packages: str, site: Path | None = None, **changes: Any) -> StactoolsGenerator:
    environ = {**os.environ, **({"PYTHONPATH": str(site)} if site else {})}
    limits = Limits(processes=1, timeout_s=30)
    return StactoolsGenerator(
        name="made", packages=packages, limits=limits, metrics=Metrics(), environ=environ, **changes
    )


@pytest.fixture
async def odd(site: Path) -> AsyncIterator[StactoolsGenerator]:
    async with generator("stactools-odd", site=site) as odd:
        yield odd


def asked(group: str | None, *args: str, package: str = "stactools-odd", **options: Any) -> Request:
    body = {
        "package_name": package,
        "group_name": group,
        "create_item_args": list(args),
        "create_item_options": options,
    }
    return Request(body, Version(1), generator=package)


@pytest.fixture
def naip_tif(tmp_path: Path) -> str:
    path = tmp_path / "m_3008501_ne_16_060_20180625.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 4, "dtype": "uint8", "crs": "EPSG:26916"}
    with rasterio.open(path, "w", transform=Affine(0.6, 0, 700000, 0, -0.6, 3300000), **profile) as tif:
        tif.write(np.zeros((4, 64, 64), "uint8"))
    return str(path)


async def test_an_item_request_for_naip_makes_its_item(naip_tif: str, tmp_path: Path) -> None:
    """A StactoolsItemGenerator message works as it is, and its collection is set."""
    body = {
        "package_name": "stactools-naip",
        "group_name": "naip",
        "create_item_args": ["ca", "2018", naip_tif],
        "collection_id": "naip",
    }
    async with generator("stactools-naip==0.5.0", local_paths=[str(tmp_path)]) as naip:
        (item,) = await naip.generate(Request(body, Version(1), collection_id="naip", generator="stactools-naip"))
    shown = {key: item[key] for key in ("type", "id", "collection", "bbox", "links")}
    assert shown == {
        "type": "Feature",
        "id": "ca_m_3008501_ne_16_060_20180625",
        "collection": "naip",
        "bbox": [-84.930417, 29.813903, -84.930013, 29.814255],
        "links": [],
    }
    assert item["assets"]["image"]["href"] == naip_tif
    assert item["properties"]["datetime"] == "2018-06-25T16:00:00Z"


async def test_items_are_found_wherever_a_command_puts_them(odd: StactoolsGenerator) -> None:
    """Saved with pystac, written to the destination, a folder of files, or printed: all are found."""
    found = [
        [item["id"] for item in await odd.generate(asked(group, "x"))]
        for group in ("odd-save", "odd-file", "odd-folder", "odd-print", "odd-save")
    ]
    assert found == [["one", "two"], ["x"], ["x-0", "x-1"], ["x"], ["one", "two"]]


async def test_flags_and_repeated_options_reach_the_command(odd: StactoolsGenerator) -> None:
    """What the original could not say arrives as it should."""
    (item,) = await odd.generate(asked("odd-file", "x", validate=False, thumbs=True, tag=["a", "b"]))
    assert item["properties"] == {
        "datetime": "2020-01-01T00:00:00Z", "validate": False, "thumbs": True, "tags": ["a", "b"]
    }  # fmt: skip


async def test_packages_are_known_by_any_spelling_and_a_version_that_fits(odd: StactoolsGenerator) -> None:
    """Names are compared as packaging does, versions with what is installed."""
    for package in ("stactools-odd", "Stactools_Odd", "stactools-odd==1.2.0", "stactools.odd>=1,<2"):
        assert len(await odd.generate(asked("odd-print", "x", package=package))) == 1


THERE = ", ".join(f"odd-{name} create-item" for name in ("file", "print", "folder", "save", "nothing"))
FAILED = "generator 'made' failed for message body:"
ODD_FILE_USAGE = "Usage: stac odd-file create-item [OPTIONS] SOURCE DESTINATION"
UNREADABLE = "cannot be read; expected a package's name, such as stactools-naip or stactools-naip==0.5.0"
NO_GROUP = (
    "the request names no group and the command cannot be guessed: send group_name, or set the generator's "
    "command to one of"
)
NO_REQUEST = "this is no request for a stactools package:"
EXPECTED = "expected an ItemRequest (package_name, group_name, create_item_args, create_item_options), or an href"


@pytest.mark.parametrize(
    ("request_", "error_class", "reason"),
    [
        (
            asked("odd-print", "x", package="stactools-other"),
            "package_not_allowed",
            "message body: package stactools-other is not allowed; allowed: stactools-odd (generators.made.packages)",
        ),
        (
            asked("odd-print", "x", package="stactools-odd==2"),
            "package_not_allowed",
            "message body: asks for stactools-odd==2, installed is stactools-odd 1.2.0",
        ),
        (
            asked("odd-print", "x", package="stactools-odd @ https://example.com/odd.zip"),
            "package_not_allowed",
            f"message body: package_name 'stactools-odd @ https://example.com/odd.zip' {UNREADABLE}",
        ),
        (
            asked("odd-print", "x", package="stactools-odd --index-url https://example.com"),
            "package_not_allowed",
            f"message body: package_name 'stactools-odd --index-url https://example.com' {UNREADABLE}",
        ),
        (
            asked("odd-print", "x", package="stactools-odd; " + "(" * 500),
            "package_not_allowed",
            f"message body: package_name 'stactools-odd; {'(' * 85}' {UNREADABLE}",
        ),
        (
            asked("naip", "x"),
            "generator_usage",
            f"{FAILED} there is no command 'naip create-item' in stactools-odd; there are: {THERE}",
        ),
        (
            asked("odd-file destroy-item", "x"),
            "generator_usage",
            f"{FAILED} there is no command 'odd-file destroy-item create-item' in stactools-odd; there are: {THERE}",
        ),
        (
            asked("odd-file", "x", "y", "z"),
            "generator_usage",
            f"{FAILED} stac odd-file create-item: Got unexpected extra argument (z) {ODD_FILE_USAGE}",
        ),
        (
            asked("odd-file", "x", colour="red"),
            "generator_usage",
            f"{FAILED} stac odd-file create-item: No such option '--colour'. {ODD_FILE_USAGE}",
        ),
        (
            asked("odd-nothing", "refuse"),
            "generator_error",
            f"{FAILED} stac odd-nothing create-item: this scene is too old",
        ),
        (
            asked("odd-nothing", "exit"),
            "generator_error",
            f"{FAILED} SystemExit: 3\nat commands.py:77 in nothing: sys.exit(3)",
        ),
        (
            Request({"href": "x"}, Version(1)),
            "generator_usage",
            f"{FAILED} {NO_GROUP}: {THERE}",
        ),
        (
            Request({"id": "S1A", "path": "x"}, Version(1), origin="s3://b/k"),
            "generator_usage",
            f"s3://b/k: {NO_REQUEST} create_item_args must be a list of texts, or href a text; {EXPECTED}",
        ),
        (
            Request({"package_name": "stactools-odd", "create_item_args": [], "create_item_options": []}, Version(1)),
            "generator_usage",
            f"message body: {NO_REQUEST} create_item_options must be an object of options and their values; {EXPECTED}",
        ),
    ],
)
async def test_requests_that_do_not_fit_are_refused_for_good(
    odd: StactoolsGenerator, request_: Request, error_class: str, reason: str
) -> None:
    """Unknown or forbidden packages, groups, options and forms: permanent, with what would have been right."""
    with pytest.raises(Permanent) as caught:
        await odd.generate(request_)
    assert (caught.value.error_class, caught.value.reason) == (error_class, reason)


async def test_a_command_that_makes_nothing_is_reported_with_what_it_printed(odd: StactoolsGenerator) -> None:
    """Success without an item is no success."""
    with pytest.raises(Permanent) as caught:
        await odd.generate(asked("odd-nothing", "idle"))
    assert caught.value.error_class == "generator_no_items"
    assert caught.value.reason.startswith(
        "generator 'made' failed for message body: stac odd-nothing create-item saved no item, wrote none to its "
        "destination and printed none; it printed: nothing to do in "
    )


async def test_hrefs_go_to_the_command_of_the_settings(site: Path) -> None:
    """S3 events and plain links name no command: settings do, and the link is its argument."""
    async with generator("stactools-odd", site=site, command="odd-print create-item") as odd:
        items = await odd.generate(Request({"href": "s3://b/k", "bucket": "b", "key": "k"}, Version(1)))
    assert [item["id"] for item in items] == ["s3://b/k"]


async def test_an_unreachable_file_is_tried_again(naip_tif: str, tmp_path: Path) -> None:
    """A file that GDAL cannot open may be there later, or the network may."""
    async with generator("stactools-naip", local_paths=[str(tmp_path)]) as naip:
        with pytest.raises(Transient) as caught:
            await naip.generate(asked("naip", "ca", "2018", naip_tif + "-", package="stactools-naip"))
    assert caught.value.error_class == "generator_error"
    assert "rasterio.errors.RasterioIOError" in caught.value.reason


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_request_names_no_file_of_the_worker(naip_tif: str, tmp_path: Path) -> None:
    """Not as input, option or destination, unless settings name its folder: read or written, nothing comes of it."""
    secret = tmp_path / "secret.json"
    secret.write_text('[{"name": "hunter2"}]')
    naip = asked("naip", "ca", "2018", "s3://b/k.tif", package="stactools-naip", providers=str(secret))
    odd = asked("odd-file", "x", str(tmp_path / "written.json"), package="stactools-naip")
    async with generator("stactools-naip") as closed:
        for request in (naip, asked("naip", "ca", "2018", naip_tif, package="stactools-naip"), odd):
            with pytest.raises(Permanent) as caught:
                await closed.generate(request)
            assert caught.value.error_class == "generator_usage"
            assert "hunter2" not in caught.value.reason
    assert names_in(tmp_path) == {naip_tif.rsplit("/", 1)[1], "secret.json"}


SETTING = "generators.made.packages:"
HERE = f"(for {sys.executable})"
CANNOT = "generator 'made' cannot start:"


@pytest.mark.parametrize(
    ("packages", "command", "problems"),
    [
        (
            ("stactools-odd==1.3", "stactools-missing>=1"),
            None,
            (
                f"{SETTING} stactools-odd==1.3 is not met, 1.2.0 is installed: pip install 'stactools-odd==1.3' {HERE}",
                f"{SETTING} stactools-missing>=1 is not installed: pip install 'stactools-missing>=1' {HERE}",
            ),
        ),
        (
            ("stactools-odd",),
            "odd create-item",
            (f"{CANNOT} LookupError: there is no command 'odd create-item'; there are: {THERE}",),
        ),
        (
            ("stactools-other",),
            None,
            (f"{CANNOT} RuntimeError: imported\nat __init__.py:1 in <module>: raise RuntimeError('imported')",),
        ),
    ],
)
async def test_what_settings_ask_for_must_be_there(
    site: Path, packages: tuple[str, ...], command: str | None, problems: tuple[str, ...]
) -> None:
    """A missing package, another version, an unknown command or an import that fails stop the start."""
    with pytest.raises(ConfigError) as caught:
        async with generator(*packages, site=site, command=command):
            pass
    assert caught.value.problems == problems


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        ("stactools-naip=0.5", "generators.made.packages: 'stactools-naip=0.5': "),
        ("naip @ https://example.com/x.zip", "expected name and version, not an address"),
    ],
)
def test_packages_must_be_requirements(package: str, problem: str) -> None:
    """A setting that pip would not understand, or that is an address, is refused before anything starts."""
    with pytest.raises(ConfigError) as caught:
        generator(package)
    assert problem in caught.value.reason
