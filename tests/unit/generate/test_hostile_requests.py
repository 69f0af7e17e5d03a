"""What a message may try with an ItemRequest: install, import, read or write what is none of its business."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from stacworker.api import Request, Version
from stacworker.errors import Permanent
from stacworker.generate.child.command_line import arguments
from stacworker.generate.child.local_paths import is_allowed
from stacworker.generate.recipe import Limits
from stacworker.generate.stactools import StactoolsGenerator, requested_package
from stacworker.metrics import Metrics

REMOTE = [
    "s3://b/k", "https://h/a/b?x=/etc", "a.tif", "sub/a.tif", "/vsis3/b/k", "/vsicurl/https://h/x.tif",
    "/vsizip/vsicurl/https://h/x.zip/a", "/vsizip//vsicurl/https://h/x.zip/a", "/vsizip/{/vsis3/b/x.zip}/a",
    'HDF5:"/vsis3/b/k.h5"://band', 'NETCDF:"/vsicurl/https://h/x.nc":v', "NETCDF:s3://b/k:v", "2018", "a..b", "-1", "",
    "10/20", "application/json; a=b", "simplecache::s3://b/k", "zip://x::https://h/x.zip", "2020-01-01T00:00:00Z/..",
]  # fmt: skip
LOCAL = [
    "/etc/passwd", "//etc/passwd", "file:///etc/passwd", "FILE:/etc/x", "~/.aws/credentials", "../x", "a/../../x", "..",
    "/vsizip//etc/x.zip/a", "/vsizip/etc/x.zip", "/vsigzip//etc/shadow", "/vsisubfile/0_10,/etc/passwd",
    "/vsicurl/file:///etc/passwd", "/vsicached?file=/etc/x", "/vsistdin/", "NETCDF:/etc/x.nc", 'NETCDF:"/etc/x.nc":v',
    'HDF5:"/etc/x"://b', "<VRTDataset>", " /etc/x", "\n/etc/x", "simplecache::/etc/x", "simplecache::file:///etc/x",
    "zip://a::/etc/x", "local:///etc", "/proc/self/environ",
]  # fmt: skip


@pytest.mark.parametrize("text", REMOTE)
def test_what_lies_elsewhere_may_be_named(text: str) -> None:
    """URLs, GDAL's paths of remote files, plain values, and files in the child's own folder."""
    assert is_allowed(text, [])


@pytest.mark.parametrize("text", LOCAL)
def test_what_lies_here_may_not_be_named(text: str) -> None:
    """However it is written: for Python, fsspec or GDAL."""
    assert not is_allowed(text, [])
    assert not is_allowed(text, ["/srv/data"])


def test_settings_may_open_folders(tmp_path: Path) -> None:
    """A file in them may be named by its path or file URL, and nothing beside them; links are followed first."""
    inside, outside = tmp_path / "data", tmp_path / "data2"
    inside.mkdir()
    outside.touch()
    (inside / "link").symlink_to(outside)
    folders = [str(inside)]
    allowed = [inside, inside / "a", f"file://{inside}/a", inside / "b" / ".." / "a"]
    refused = [outside, inside / ".." / "data2", f"x::{inside}/a", inside / "link", f"file://{outside}"]
    assert [is_allowed(str(each), folders) for each in allowed] == [True] * 4
    assert [is_allowed(str(each), folders) for each in refused] == [False] * 5


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-p", "--providers")
@click.option("-o", "--outdir")
@click.option("-t", "--tag", multiple=True)
@click.option("--range", "range_", nargs=2)
@click.option("-v", "--verbose", count=True)
def create_item(**values: Any) -> None:
    """Take files in every way there is."""


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["/etc/passwd"], {}),
        (["s3://b/k", "/etc/cron.d/x"], {}),
        (["s3://b/k", "s3://b/elsewhere"], {}),
        (["s3://b/k"], {"providers": "/etc/passwd"}),
        (["s3://b/k", "--providers=/etc/passwd"], {}),
        (["s3://b/k", "--prov", "/etc/passwd"], {}),
        (["s3://b/k", "-p/etc/passwd"], {}),
        (["-vp/etc/passwd", "s3://b/k"], {}),
        (["--", "/etc/passwd"], {}),
        (["s3://b/k"], {"o": "/etc"}),
        (["s3://b/k"], {"-o": "/etc"}),
        (["s3://b/k"], {"outdir": "https://h/x"}),
        (["s3://b/k"], {"tag": ["a", "file:///etc/passwd"]}),
        (["s3://b/k"], {"range_": ["a", "b"]}),
        (["s3://b/k"], {"range": ["a", "/etc/passwd"]}),
        (["s3://b/k"], {"providers=/etc/passwd": ""}),
        (["s3://b/k"], {"verbose": 10**9}),
    ],
)
def test_no_way_to_name_a_file_of_this_machine(args: list[str], options: dict[str, Any]) -> None:
    """Not with the ways in which a command line may be written."""
    with pytest.raises(click.UsageError):
        arguments(create_item, "group create-item", args, options, Path("out"))


PLACES = st.sampled_from(LOCAL) | st.from_regex(r"/[a-z]{1,5}(/[a-z]{1,5}){0,3}", fullmatch=True)
WORDS = st.sampled_from(["s3://b/k", "-p", "--providers", "-o", "--outdir=", "--", "-t", "x", "--range", "-v", "-vp"])


@given(st.lists(PLACES | WORDS, max_size=8), st.dictionaries(st.sampled_from(["providers", "o", "tag", "p"]), PLACES))
def test_whatever_comes_through_names_no_file_of_this_machine(args: list[str], options: dict[str, Any]) -> None:
    """However arguments are mixed: what the command is given in the end is checked, as the command would read it."""
    out = Path("/out")
    try:
        given_ = arguments(create_item, "group create-item", args, options, out)
    except click.UsageError:
        return
    values = create_item.make_parser(click.Context(create_item)).parse_args(args=list(given_))[0]
    texts = [part for value in values.values() for part in (value if isinstance(value, list) else [value])]
    texts = [part for text in texts for part in (text if isinstance(text, tuple) else [text]) if isinstance(part, str)]
    assert [text for text in texts if not is_allowed(text, [str(out)])] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
)
NAMES = JSON | st.sampled_from(
    [
        "../stactools-naip", "./stactools_naip", "/tmp/x.whl", "-e .", "--index-url=http://h", "-r/etc/passwd",
        "stactools-naip @ https://h/x.whl", "stactools-naip@file:///x", "git+https://h/x", "stactools-naip; import os",
        "stactools-naip --pre", "stactools.naip.commands", "os", "stactools-naip[x]", "stactools-naip\n-e .",
        "STACTOOLS__NAIP", "stactools-naip==0.5.0", "stactools-naip>=0 ; os_name=='x'", "${HOME}", "$(id)", "`id`",
    ]
)  # fmt: skip


def tried(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the class of its permanent error."""
    try:
        return call()
    except Permanent as error:
        return error.error_class


@given(NAMES)
def test_a_package_name_is_a_name(name: Any) -> None:
    """Anything that pip would take for an address, a path, a file or an option is refused or is a plain name."""
    asked = tried(lambda: requested_package(name, "message body"))
    if asked == "package_not_allowed":
        return
    assert asked.url is None
    assert canonicalize_name(asked.name).replace("-", "").isalnum()


@given(NAMES, JSON, JSON, JSON)
def test_only_allowed_packages_reach_a_child(name: Any, group: Any, args: Any, options: Any) -> None:
    """Whatever a request holds, it is refused, or asks for an allowed package with texts for arguments."""
    made = StactoolsGenerator(
        name="made", packages=["stactools-naip==0.5.0"], limits=Limits(), metrics=Metrics(), environ={}
    )
    made._versions = {"stactools-naip": "0.5.0"}
    body = {"package_name": name, "group_name": group, "create_item_args": args, "create_item_options": options}
    job = tried(lambda: made._job(Request(body, Version(1))))
    if job in ("package_not_allowed", "generator_usage"):
        return
    assert job["package"] in ("stactools-naip", None)
    assert all(isinstance(arg, str | int | float) for arg in job["args"])
    assert isinstance(job["options"], dict)
