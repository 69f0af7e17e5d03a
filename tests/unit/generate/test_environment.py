"""Which variables children see."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stacworker.api import Request, Version
from stacworker.errors import StacworkerError
from stacworker.generate.environment import scrubbed
from stacworker.generate.function import FunctionGenerator

PREFIXES = ["AWS_", "PG", "STACWORKER_", "EARTHDATA_", "AZURE_", "GOOGLE_", "GDAL_HTTP_", "PROJ_"]
SECRETS = ["PASSWORD", "SECRET_ACCESS_KEY", "TOKEN", "USERPWD", "BEARER", "HEADER_FILE", "PASSFILE"]


@given(st.sampled_from(PREFIXES), st.sampled_from(SECRETS))
def test_secrets_do_not_pass(prefix: str, secret: str) -> None:
    """Neither by an unknown name nor by a harmless prefix."""
    assert scrubbed({prefix + secret: "s3cr3t"}) == {}


@given(st.sampled_from(PREFIXES), st.sampled_from(SECRETS))
def test_what_the_operator_names_passes(prefix: str, secret: str) -> None:
    """A name in the settings is a decision."""
    assert scrubbed({prefix + secret: "x"}, also=[prefix + secret]) == {prefix + secret: "x"}


def test_what_tools_need_passes() -> None:
    """Paths, language, time zone, certificates, and the settings of GDAL and PROJ."""
    names = """
        PATH HOME LANG LC_ALL TZ TMPDIR SSL_CERT_FILE REQUESTS_CA_BUNDLE VIRTUAL_ENV PYTHONPATH
        GDAL_DATA GDAL_CACHEMAX PROJ_LIB PROJ_DATA
    """
    needed = dict.fromkeys(names.split(), "x")
    assert scrubbed({**needed, "AWS_REGION": "x", "OTHER": "x"}) == needed


def test_a_proxy_with_a_password_does_not_pass() -> None:
    """A harmless name may hold a secret."""
    environ = {"GDAL_HTTP_PROXY": "http://me:hush@proxy:8080", "GDAL_DATA": "/data"}
    assert scrubbed(environ) == {"GDAL_DATA": "/data"}
    assert scrubbed(environ, also=["GDAL_HTTP_PROXY"]) == environ


SECRET = "hUnt'er\\2" * 4


@pytest.mark.parametrize(
    ("call", "beside"),
    [
        ("raises_environment", 0),
        ("raises_environment", 570),
        ("prints_environment_and_dies", 0),
        ("prints_environment_and_dies", 580),
        ("prints_environment_and_dies", 4080),
    ],
)
async def test_a_crash_that_shows_the_environment_tells_no_secret(
    generator: Callable[..., FunctionGenerator], call: str, beside: int
) -> None:
    """What goes to logs and dead letters lacks the values of variables that sound like secrets, cut or whole."""
    environ = {"EARTHDATA_TOKEN": SECRET, "AWS_SECRET_KEY": SECRET, "PATH": os.environ["PATH"]}
    request = Request({"id": "a", "call": call, "beside": beside}, Version(1))
    with capture_logs() as logged:
        async with generator("either", environ=environ, env=list(environ)) as crashing:
            with pytest.raises(StacworkerError) as caught:
                await crashing.generate(request)
    told = caught.value.reason + repr(logged)
    assert "hUnt" not in told
    assert "er\\2hU" not in told
    assert "…" in told
