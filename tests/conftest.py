"""What all tests share: an environment that reaches nothing real, fixtures, and no process left behind."""

from __future__ import annotations

import os

from hypothesis import settings

pytest_plugins = ["tests.leftovers", "tests.integration.pg", "tests.integration.strict_pg", "tests.integration.aws"]

# Whatever is configured on this machine, no test may find real credentials, a real endpoint or real settings.
_AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_KEPT = ("STACWORKER_LOCALSTACK_PYTHON",)


def _isolate_environment() -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "STACWORKER_")) and name not in _KEPT:
            del os.environ[name]
    os.environ.update(_AWS)
    # Servers of tests are on loopback: no proxy between.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


_isolate_environment()

# The same examples on every run where a red run must mean a change; elsewhere hypothesis explores.
settings.register_profile("explore", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "explore")
