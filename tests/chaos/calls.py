"""AWS calls and their answers, as they go over the wire of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal
from xml.sax.saxutils import escape

import orjson

Ending = Literal["whole", "reset", "unanswered", "truncated"]
"""What the client gets to see of an answer: all, a reset connection, nothing for ever, or half of the body."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a client.

    `service` is the name in the request's signature (`sqs`, `s3`, `sns`, `secretsmanager`), `operation` AWS's
    name for the call (S3: the common ones, else the method). `json` is the parsed body of a call in a JSON
    protocol, else empty.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    service: str
    operation: str
    json: Mapping[str, Any]

    @property
    def queue_url(self) -> str:
        """The queue that an SQS call is about; empty for other calls."""
        return str(self.json.get("QueueUrl", ""))

    @property
    def is_fifo(self) -> bool:
        """True for a call about a FIFO queue, whose order and uniqueness SQS guarantees."""
        return self.queue_url.endswith(".fifo")

    def with_json(self, **changes: Any) -> Call:
        """Return the call with these fields of its body replaced."""
        changed = {**self.json, **changes}
        return replace(self, json=changed, body=orjson.dumps(changed))


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client, and how much of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ending: Ending = "whole"

    @property
    def ok(self) -> bool:
        """True when the service did what it was asked."""
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def json(self) -> dict[str, Any]:
        """The parsed body; empty where it is empty."""
        parsed: dict[str, Any] = orjson.loads(self.body) if self.body else {}
        return parsed

    def with_json(self, **changes: Any) -> Answer:
        """Return the answer with these fields of its body replaced."""
        return json_answer({**self.json, **changes})


def read_call(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call:
    """Tell what a request asks for, in the protocol of its service."""
    prefix, _, target = headers.get("X-Amz-Target", "").rpartition(".")
    if target:
        return Call(
            method, path, headers, body, _signed_service(headers) or prefix, target, orjson.loads(body or b"{}")
        )
    service = _signed_service(headers) or "s3"
    if service != "s3":  # the query protocol: a form
        action = body.partition(b"Action=")[2].partition(b"&")[0].decode()
        return Call(method, path, headers, body, service, action or method, {})
    return Call(method, path, headers, body, service, _s3_operation(method, path), {})


def _signed_service(headers: Mapping[str, str]) -> str:
    # AWS4-HMAC-SHA256 Credential=key/20240101/us-east-1/sqs/aws4_request, SignedHeaders=…
    scope = headers.get("Authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) == 5 else ""


def _s3_operation(method: str, path: str) -> str:
    key = path.partition("?")[0].strip("/").partition("/")[2]
    if not key:
        return {"GET": "ListObjectsV2", "HEAD": "HeadBucket", "PUT": "CreateBucket"}.get(method, method)
    return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}.get(method, method)


def json_answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer in SQS' JSON protocol."""
    return Answer(status, {"Content-Type": "application/x-amz-json-1.0", **(headers or {})}, orjson.dumps(body))


def error_answer(call: Call, status: int, code: str, message: str) -> Answer:
    """Return an error in the form of the call's service."""
    fault = "Sender" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Receiver"
    if call.headers.get("X-Amz-Target"):
        body = {"__type": f"com.amazonaws.{call.service}#{code}", "message": message}
        return json_answer(body, status, {"x-amzn-query-error": f"{code};{fault}"})
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    if call.service != "s3":
        error = f"<ErrorResponse>{error.replace('<Code>', f'<Type>{fault}</Type><Code>')}</ErrorResponse>"
    return Answer(status, {"Content-Type": "application/xml"}, f'<?xml version="1.0"?>{error}'.encode())
