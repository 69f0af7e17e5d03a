"""Which variables children see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stacworker.generate.environment import scrubbed

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
