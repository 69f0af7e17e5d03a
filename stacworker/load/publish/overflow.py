"""Items that are too large for a message: an object in S3, and a message that points to it.

The message is what Amazon's extended client libraries send, so whoever uses those, or stacworker, gets the item:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-managing-large-messages.html
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from stacworker.api import Document
from stacworker.errors import Permanent
from stacworker.load.publish.bucket import GEOJSON, Bucket
from stacworker.load.publish.items import names_of

SIZE_ATTRIBUTE = "ExtendedPayloadSize"
"""The message attribute (Number) with the object's size in bytes, by which those libraries know a pointer."""

_POINTER_CLASS = "software.amazon.payloadoffloading.PayloadS3Pointer"


class Overflow:
    """Writes `<prefix><collection>/<id>-<SHA-256 of the contents, 16 hex digits>.json`.

    The same item has the same key, so putting it twice leaves one object. Nothing is ever deleted: a lifecycle
    rule clears the bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def put(self, document: Document, text: bytes) -> bytes:
        """Write an item; return the message that points to it, once S3 has it.

        Raises `Permanent` when no object can be named for this item, or S3 refuses it; `Unavailable`.
        """
        collection, item_id = names_of(document)
        ending = f"-{hashlib.sha256(text).hexdigest()[:16]}.json"
        key = self._bucket.key(document, collection, item_id, ending=ending)
        try:
            await self._bucket.write(key, text, GEOJSON)
        except Permanent as error:
            error.collection, error.item_id = collection, item_id
            raise
        return orjson.dumps([_POINTER_CLASS, {"s3BucketName": self._bucket.name, "s3Key": key}])

    async def ping(self) -> None:
        """Raise `Unavailable` when the bucket does not answer."""
        await self._bucket.ping()


def attributes_of(size_bytes: int) -> dict[str, dict[str, Any]]:
    """Return the message attributes of a pointer to an object of this size, in boto's form."""
    return {SIZE_ATTRIBUTE: {"DataType": "Number", "StringValue": str(size_bytes)}}
