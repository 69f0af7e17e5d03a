"""An S3 that listens on a loopback port, for what has to talk to one: moto's, in this process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from stacworker.envelope.locations import s3_location
from stacworker.errors import ConfigError

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class S3Server:
    """Runs while it is entered; every server begins empty. Needs the extra `testing`."""

    def __init__(self) -> None:
        try:
            from moto.server import ThreadedMotoServer  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(f"{error}: pip install 'stacworker[testing]'") from error
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        import boto3  # noqa: PLC0415 - as above

        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint_url = f"http://{host}:{port}"
        session = boto3.Session("test", "test", region_name=CREDENTIALS["AWS_REGION"])
        self._s3: Any = session.client("s3", endpoint_url=self.endpoint_url)
        for page in self._s3.list_buckets()["Buckets"]:  # moto keeps its state for the process
            self._empty(page["Name"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._s3.close()
        self._server.stop()

    def make_bucket(self, name: str) -> None:
        """Make a bucket; harmless when it is there."""
        self._s3.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Store an object, in a bucket that is made if need be; return its s3:// URL."""
        self.make_bucket(bucket)
        self._s3.put_object(Bucket=bucket, Key=key, Body=data)
        return f"s3://{bucket}/{key}"

    def read(self, url: str) -> bytes:
        """Return the content of an object; raises KeyError when it is not there."""
        location = s3_location(url)
        if location is None or location.key not in self.keys(location.bucket):
            raise KeyError(url)
        data: bytes = self._s3.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
        return data

    def exists(self, url: str) -> bool:
        """Say whether an object is there."""
        location = s3_location(url)
        return location is not None and location.key in self.keys(location.bucket)

    def keys(self, bucket: str) -> list[str]:
        """Return the keys in a bucket, sorted."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def _empty(self, bucket: str) -> None:
        for key in self.keys(bucket):
            self._s3.delete_object(Bucket=bucket, Key=key)
        self._s3.delete_bucket(Bucket=bucket)
