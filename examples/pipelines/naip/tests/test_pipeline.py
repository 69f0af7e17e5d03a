"""What the pipeline makes of messages. Run with `stacworker pipelines test naip --pipelines examples/pipelines`."""

from __future__ import annotations

import pytest


def test_the_package_is_installed_as_pinned(pipeline):
    """Its version is the one in pipeline.yaml."""
    assert pipeline.versions == {"stactools-naip": "0.5.0"}


def test_the_collection_can_be_loaded(pipeline):
    """collection.py runs, and its id is the one that pipeline.yaml names."""
    assert pipeline.collection()["id"] == "naip"


def test_files_elsewhere_on_the_machine_are_refused(pipeline):
    """A message may only name granules where pipeline.yaml says they are."""
    with pytest.raises(pipeline.Refused, match="local_paths"):
        pipeline.items(
            {
                "package_name": "stactools-naip",
                "group_name": "naip",
                "create_item_args": ["ca", "2018", "/etc/passwd"],
            }
        )
