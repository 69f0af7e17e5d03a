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


@pytest.mark.parametrize("before", [0, 560, 4050])
@pytest.mark.parametrize("call", ["raises_environment", "prints_environment_and_dies"])
async def test_a_crash_that_shows_the_environment_tells_no_secret(
    generator: Callable[..., FunctionGenerator], call: str, before: int
) -> None:
    """What goes to logs and dead letters lacks the values of variables that sound like secrets, cut or whole."""
    environ = {"PATH": os.environ["PATH"], "EARTHDATA_TOKEN": SECRET, "EARTHDATA_USER": "me", "AWS_SECRET_KEY": SECRET}
    names = [name for name in environ if name != "PATH"]
    request = Request({"id": "a", "call": call, "before": before}, Version(1))
    with capture_logs() as logged:
        async with generator("either", environ=environ, env=names) as crashing:
            with pytest.raises(StacworkerError) as caught:
                await crashing.generate(request)
    told = caught.value.reason + repr(logged)
    assert "hUnt" not in told
    assert "xx" in told or "EARTHDATA_USER': 'me'" in told
