"""S3 calls whose failures say whether one object or all of S3 is the matter, as those of `S3Objects` do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stacworker.aws import NO_ACCESS, translated
from stacworker.envelope.forms import S3Location
from stacworker.envelope.objects import probe
from stacworker.errors import Transient, Unavailable


class S3:
    """A client that somebody else opens and closes, and the memory of which bucket last was away."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._away: str | None = None

    @asynccontextmanager
    async def reaching(self, doing: str, location: S3Location) -> AsyncIterator[None]:
        """Translate the errors of calls about an object.

        As `translated` does; but what failed while its bucket still answers is Transient.
        """
        try:
            with translated("s3", f"{doing} {location}"):
                yield
        except Unavailable as error:
            self._away = location.bucket
            if error.error_class in NO_ACCESS:
                raise
            await probe(self.client, location.bucket)
            self._away = None
            raise Transient(error.reason, error_class=error.error_class) from error

    async def ping(self) -> None:
        """Raise Unavailable while the bucket that was away still is."""
        if self._away is not None:
            await probe(self.client, self._away)
            self._away = None
