"""What functions of stactools-pipelines are given, and what is taken from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from stacworker.generate.child import lambda_app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder for modules, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("app", "collection", "historic"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("stactools_pipelines", "stactools_pipelines.cognito", "stactools_pipelines.cognito.utils"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.delenv("INGESTOR_URL", raising=False)
    monkeypatch.delenv("QUEUE_URL", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"href": "some/key.tif"}, "some/key.tif"),
        ({"id": "S1A", "path": "GRD/x"}, {"id": "S1A", "path": "GRD/x"}),
        ({"path": "GRD/x"}, {"path": "GRD/x"}),
    ],
)
def test_a_request_becomes_the_body_it_came_from(request_: dict[str, Any], expected: Any) -> None:
    """Bare keys as they are, objects in SNS' envelope."""
    body = lambda_app.message_body(request_)
    assert (body if isinstance(expected, str) else json.loads(json.loads(body)["Message"])) == expected


def test_an_s3_object_becomes_an_event() -> None:
    """With bucket and key where such functions look for them."""
    body = lambda_app.message_body({"href": "s3://b/k/x.tif", "bucket": "b", "key": "k/x.tif"})
    (record,) = json.loads(json.loads(body)["Message"])["Records"]
    assert (record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]) == ("b", "k/x.tif")


def test_only_the_ingestor_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests go where they went before; afterwards all do."""
    monkeypatch.setenv("INGESTOR_URL", "https://ingestor.invalid/dev/")
    sent: list[str] = []

    def send(_: Any, request: Any, **__: Any) -> requests.Response:
        sent.append(request.url)
        answer = requests.Response()
        answer.status_code, answer.url = 418, request.url
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    with lambda_app.ingestor() as posted:
        taken = requests.post("https://ingestor.invalid/dev/ingestions", json={"id": "a"}, timeout=1)
        taken.raise_for_status()
        assert taken.json() == {"id": "a"}
        assert requests.get("https://elsewhere.invalid/", timeout=1).status_code == 418
    assert posted == {"ingestions": [{"id": "a"}], "collections": []}
    assert requests.post("https://ingestor.invalid/dev/ingestions", json={}, timeout=1).status_code == 418
    assert sent == ["https://elsewhere.invalid/", "https://ingestor.invalid/dev/ingestions"]


def test_a_collection_that_is_not_posted_is_told(folder: Path) -> None:
    """Nothing is made up."""
    (folder / "collection.py").write_text("def handler(event, context):\n    pass\n")
    with pytest.raises(lambda_app.NothingPosted, match="posted 0 collections"):
        lambda_app.create_collection()


def test_messages_for_the_queue_are_requests(folder: Path) -> None:
    """One by one and in batches; other clients are real."""
    (folder / "historic.py").write_text(
        "import os, boto3\n"
        "def handler(event, context):\n"
        "    sqs = boto3.client('sqs')\n"
        "    sqs.send_message(QueueUrl=os.environ['QUEUE_URL'], MessageBody='a')\n"
        "    sqs.send_message_batch(QueueUrl='x', Entries=[{'Id': '1', 'MessageBody': 'b'}])\n"
        "    assert boto3.client('s3', region_name='us-east-1').meta.service_model.service_name == 's3'\n"
    )
    assert lambda_app.create_requests() == ["a", "b"]
