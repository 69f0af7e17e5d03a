"""The collection, as the package describes it. Runs in the pipeline's own environment."""

from __future__ import annotations

import pystac
from stactools.naip.stac import create_collection as describe

SEASONS = list(range(2010, 2025))


def create_collection() -> pystac.Collection:
    """Return the collection, under the id that pipeline.yaml names."""
    collection = describe(SEASONS)
    collection.id = "naip"
    return collection
