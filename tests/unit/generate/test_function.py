"""What a function may be and return, through real child processes."""

from __future__ import annotations

import os
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacworker.api import Request, Version
from stacworker.envelope.forms import IdPath
from stacworker.envelope.unwrap import unwrap
from stacworker.errors import ConfigError, Permanent
from stacworker.generate.function import FunctionGenerator

Make = Callable[..., FunctionGenerator]


def asked(**body: Any) -> Request:
    return Request({"id": "a", **body}, Version(1), origin="s3://bucket/a.tif")


async def made(generator: FunctionGenerator, request: Request) -> Any:
    async with generator:
        return await generator.generate(request)


async def test_a_dict_is_an_item_and_options_are_keyword_arguments(generator: Make) -> None:
    """A plain function gets the request's body and the generator's options, and returns one dict."""
    assert await made(generator("item", options={"level": 2}), asked()) == [
        {"type": "Feature", "links": [], "assets": {}, "geometry": None, "id": "a", "properties": {"level": 2}}
    ]


async def test_a_pystac_item_becomes_a_dict(generator: Make) -> None:
    """pystac.Item is turned into JSON by its own to_dict()."""
    items = await made(generator("pystac_item"), asked())
    assert [(item["id"], item["properties"]) for item in items] == [("a", {"datetime": "2020-01-02T00:00:00Z"})]


@pytest.mark.parametrize("function", ["items", "collection_of_items", "async_generator", "async_list"])
async def test_many_items_come_in_order(generator: Make, function: str) -> None:
    """Generators, FeatureCollections, async generators and coroutines that return lists all give many items."""
    assert await made(generator(function), asked(count=3)) == [{"id": "a-0"}, {"id": "a-1"}, {"id": "a-2"}]


async def test_thousands_of_items_of_one_request_arrive(generator: Make) -> None:
    """More items than any buffer holds come through."""
    items = await made(generator("items"), asked(count=20_000))
    assert items == [{"id": f"a-{number}"} for number in range(20_000)]


async def test_no_items_is_an_answer(generator: Make) -> None:
    """An empty list says that there is nothing to make."""
    assert await made(generator("no_items"), asked()) == []


async def test_a_coroutine_function_is_awaited(generator: Make) -> None:
    """An async def works as def does."""
    assert [item["id"] for item in await made(generator("async_item"), asked())] == ["a"]


async def test_coroutines_share_one_event_loop(generator: Make) -> None:
    """What an async function keeps between jobs (a client) stays usable: its loop lives on."""
    async with generator("same_loop") as same_loop:
        first = await same_loop.generate(asked())
        assert await same_loop.generate(asked()) == first


async def test_the_request_chooses_the_collection(generator: Make) -> None:
    """A request's collection_id overrides what the function put there."""
    request = Request({"id": "a"}, Version(1), collection_id="naip")
    assert [item["collection"] for item in await made(generator("item"), request)] == ["naip"]


async def test_numpy_dates_and_nan_become_json(generator: Make) -> None:
    """What numpy and datetime give is JSON on the other side; NaN, which JSON does not have, is null."""
    assert await made(generator("returns_numpy"), asked()) == [
        {
            "float": 0.5,
            "integer": 7,
            "array": [[0, 2], [3, 5]],
            "when": "2020-01-02T03:04:05Z",
            "naive": "2020-01-02T00:00:00Z",
            "nan": None,
        }
    ]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            "returns_none",
            (
                "the function returned None; expected an item (dict or pystac.Item) or an iterable of items, [] where "
                "there are none"
            ),
        ),
        (
            "returns_text",
            (
                "the function returned a value of type str; expected an item (dict or pystac.Item) or an iterable of "
                "items, [] where there are none"
            ),
        ),
        (
            "returns_numbers",
            "the function gave a value of type int among its items; expected a dict or pystac.Item",
        ),
        (
            "returns_collection_of_numbers",
            "the function gave a value of type int among its items; expected a dict or pystac.Item",
        ),
        (
            "returns_object_in_item",
            "item.properties.where[1] is a builtins.object, which JSON cannot hold",
        ),
    ],
)
async def test_what_is_no_item_is_refused_by_name(generator: Make, function: str, reason: str) -> None:
    """Anything but items is a permanent error that says what came and what was expected."""
    with pytest.raises(Permanent) as caught:
        await made(generator(function), asked())
    assert caught.value.reason == f"generator 'sample' failed for s3://bucket/a.tif: {reason}"
    assert caught.value.error_class == "generator_error"


async def test_the_deepest_request_that_is_understood_reaches_the_function(generator: Make) -> None:
    """What unwrapping lets through can be written again in the frame around it."""
    depth = 253
    body = '{"id":"a","path":"b","x":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
    (form,) = unwrap(body, sent_at_ms=0).forms
    assert isinstance(form, IdPath)
    assert [item["id"] for item in await made(generator("item"), Request(form.body, form.version))] == ["a"]


async def test_a_request_cannot_fill_the_memory_with_items(generator: Make) -> None:
    """A generator that never ends is stopped at the bound on a request's items, and the child lives on."""
    async with generator("either", max_result_bytes=1_000_000) as bounded:
        pid = await bounded.generate(asked(call="pid"))
        with pytest.raises(Permanent) as caught:
            await bounded.generate(asked(call="endless"))
        assert caught.value.reason == (
            "generator 'sample' failed for s3://bucket/a.tif: the items of this request are larger than 1000000 bytes"
        )
        assert await bounded.generate(asked(call="pid")) == pid


async def test_children_see_no_secrets(generator: Make) -> None:
    """Only harmless variables and those that the operator names reach the child."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "GDAL_CACHEMAX": "64",
        "GDAL_HTTP_BEARER": "s3cr3t",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_REQUEST_PAYER": "requester",
        "PGPASSWORD": "s3cr3t",
        "STACWORKER_DATABASE__DSN": "postgresql://u:s3cr3t@h/d",
        "EARTHDATA_TOKEN": "s3cr3t",
        "MY_SETTING": "1",
    }
    (seen,) = await made(generator("environment", environ=environ, env=["MY_SETTING", "AWS_REQUEST_PAYER"]), asked())
    assert seen["names"] == [
        "AWS_REQUEST_PAYER", "GDAL_CACHEMAX", "HOME", "LC_ALL", "MY_SETTING", "PATH", "TMPDIR"
    ]  # fmt: skip


async def test_every_job_starts_in_an_empty_folder_of_its_own(generator: Make) -> None:
    """Files that one job leaves are gone for the next, and temporary files go to the same folder."""
    async with generator("folder") as leaves_files:
        (first,) = await leaves_files.generate(asked())
        (second,) = await leaves_files.generate(asked())
    assert first == second == {"found": [], "folder": first["folder"], "temporary": first["folder"]}


async def test_children_can_live_in_another_environment(generator: Make, tmp_path: Path) -> None:
    """An environment with nothing but Python is enough: neither stacworker nor orjson need be there."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    environ = {"PATH": os.environ["PATH"]}
    items = await made(generator("modules", interpreter=str(environment / "bin" / "python"), environ=environ), asked())
    assert items == [{"prefix": str(environment), "there": [], "when": "2020-01-02T00:00:00Z"}]


async def test_standard_input_is_empty_and_the_session_is_the_childs_own(generator: Make) -> None:
    """Reading standard input ends at once, and a Ctrl-C on our terminal does not reach children."""
    assert await made(generator("inputs"), asked()) == [{"stdin": "", "session": True}]


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("no_such_module:create_items", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "generate_broken:create_items",
            (
                "ImportError: libgdal.so.99 is missing\n"
                'at generate_broken.py:6 in <module>: raise ImportError("libgdal.so.99 is missing")'
                "; its last output: looking for the library"
            ),
        ),
        ("generate_exiting:create_items", "its process exited with status 7; its last output: no licence"),
        ("generate_samples:NOT_A_FUNCTION", "a value of type dict, expected a function create_items(request)"),
        ("generate_samples:itme", "LookupError: generate_samples has no 'itme'; it has item, pystac_item, items"),
        (
            "generate_samples:no_items",
            "cannot be called with a request and its options (x): got an unexpected keyword argument 'x'",
        ),
    ],
)
async def test_a_function_that_cannot_be_loaded_stops_the_start(generator: Make, ref: str, reason: str) -> None:
    """Entering the generator raises ConfigError with the reason that the child met, and what it printed."""
    with pytest.raises(ConfigError) as caught:
        await made(generator(ref, options={"x": 1}), asked())
    assert caught.value.reason.startswith("generator 'sample' cannot start: ")
    assert reason in caught.value.reason


async def test_a_child_that_is_not_ready_in_time_stops_the_start(generator: Make) -> None:
    """An import that hangs is a failed start."""
    with pytest.raises(ConfigError) as caught:
        await made(generator("time:sleep", start_timeout_s=0.001), asked())
    assert caught.value.reason == "generator 'sample' cannot start: its process was not ready after 0.001 s"


async def test_an_interpreter_that_is_not_there_stops_the_start(generator: Make) -> None:
    """The path of another environment's interpreter is in the reason."""
    with pytest.raises(ConfigError) as caught:
        await made(generator("item", interpreter="/nowhere/python"), asked())
    assert caught.value.reason == (
        "generator 'sample' cannot start: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/python'"
    )


def test_a_reference_without_function_is_a_wrong_setting(generator: Make) -> None:
    """The key, the value and what is allowed are in the error."""
    with pytest.raises(ConfigError) as caught:
        generator("nothing:")
    assert caught.value.reason == "generators.sample.type: 'nothing:': expected module:function, or stactools"


def test_options_that_are_not_json_are_a_wrong_setting(generator: Make) -> None:
    """YAML can hold what cannot go to another process."""
    with pytest.raises(ConfigError) as caught:
        generator("item", options={"bands": {1, 2}})
    assert caught.value.reason == (
        "generators.sample.options: cannot be passed to a process as JSON: Type is not JSON serializable: set"
    )
