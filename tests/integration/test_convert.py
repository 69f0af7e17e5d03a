"""Folders of stactools-pipelines, of the shape of its Sentinel-1 example, converted and run as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.integration.aws import MakeQueue, MakeTopic
from tests.integration.worker import Catalogue, Worker

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

FILES = {
    "config.yaml": """
        id: "sentinel1"
        compute: "awslambda"
        secret_arn: "arn:aws:secretsmanager:eu-central-1:000000000000:secret:asdi-auth"
        ingestor_url: "https://ingestor.example/dev"
        sns: "arn:aws:sns:eu-central-1:000000000000:SentinelS1L1C"
        inventory_location: "s3://inventory/hive/dt=2022-11-16-01-00/"
        historic_frequency: 0
    """,
    "requirements.txt": "aws-lambda-powertools\njmespath\npystac\nrequests\nboto3\n",
    "app.py": """
        import datetime
        import json
        import os

        import pystac
        import requests
        from aws_lambda_powertools.utilities.data_classes import SQSEvent, event_source

        from stactools_pipelines.cognito.utils import get_token

        def create_item(granule_href):
            box = [10.0, 50.0, 11.0, 51.0]
            ring = [[10.0, 50.0], [11.0, 50.0], [11.0, 51.0], [10.0, 51.0], [10.0, 50.0]]
            item = pystac.Item(
                granule_href.rsplit("/", 1)[-1],
                {"type": "Polygon", "coordinates": [ring]},
                box,
                datetime.datetime(2022, 11, 11, tzinfo=datetime.timezone.utc),
                {},
            )
            item.add_asset("vv", pystac.Asset(granule_href + "/measurement/iw-vv.tiff"))
            return item

        @event_source(data_class=SQSEvent)
        def handler(event: SQSEvent, context):
            endpoint = f"{os.environ['INGESTOR_URL'].strip('/')}/ingestions"
            headers = {"Authorization": f"bearer {get_token()}"}
            for record in event.records:
                message = json.loads(json.loads(record.body)["Message"])
                stac = create_item(f"s3://sentinel-s1-l1c/{message['path']}")
                stac.collection_id = "sentinel1-grd"
                response = requests.post(url=endpoint, data=json.dumps(stac.to_dict()), headers=headers)
                response.raise_for_status()
    """,
    "collection.py": """
        import json
        import os

        import requests

        from stactools_pipelines.cognito.utils import get_token

        def handler(event, context):
            body = {
                "type": "Collection", "stac_version": "1.0.0", "id": "sentinel1-grd", "description": "GRD",
                "license": "other", "links": [],
                "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            }
            headers = {"Authorization": f"bearer {get_token()}"}
            url = f"{os.environ['INGESTOR_URL'].strip('/')}/collections"
            requests.post(url=url, data=json.dumps(body), headers=headers).raise_for_status()
    """,
    "historic.py": """
        import json
        import os

        import boto3

        def handler(event, context):
            sqs_client = boto3.client("sqs")
            for number in range(3):
                body = json.dumps({"Message": json.dumps({"path": f"GRD/historic/S1A_{number}"})})
                sqs_client.send_message(QueueUrl=os.environ["QUEUE_URL"], MessageBody=body)
    """,
    "test_app.py": "def test_handler():\n    pass\n",
}


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """Convert the folder with the command; return the pipelines' folder."""
    old = tmp_path / "old" / "sentinel1"
    old.mkdir(parents=True)
    for name, text in FILES.items():
        (old / name).write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "stacworker", "pipelines", "convert", str(old)]
    done = subprocess.run(
        [*command, "--pipelines", str(tmp_path / "pipelines")], capture_output=True, text=True, check=True, timeout=60
    )
    assert "set SENTINEL1_QUEUE_URL" in done.stderr
    assert not (tmp_path / "pipelines" / "sentinel1" / "test_app.py").exists()
    return tmp_path / "pipelines"


async def test_it_runs_unchanged(
    converted: Path,
    worker: Callable[..., Worker],
    queue: MakeQueue,
    topic: MakeTopic,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Notifications through SNS and the backfill make items, the collection is there, and nothing is posted."""
    source, made = queue("sentinel1", max_receive_count=3), topic()
    made.subscribe(source)
    monkeypatch.setenv("SENTINEL1_QUEUE_URL", source.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with (converted / "sentinel1" / "pipeline.yaml").open("a") as file:
        file.write("limits: {wait_time_s: 1}\n")
    running = worker(pipelines={"folder": str(converted)}, environments={"folder": str(tmp_path / "environments")})
    running.spawn()
    await running.until(running.is_ready, within_s=120)  # its environment is made first
    name = "S1A_IW_GRDH_1SDV_20221111T021759_20221111T021828_045840_057BE4_F261"
    await made.publish(json.dumps({"id": name, "path": f"GRD/2022/11/11/IW/DV/{name}"}))
    await catalogue.until_count("sentinel1-grd", 4)
    found = await catalogue.search(collections=["sentinel1-grd"])
    assert sorted(item["id"] for item in found) == ["S1A_0", "S1A_1", "S1A_2", name]
    (item,) = [item for item in found if item["id"] == name]
    assert item["assets"]["vv"]["href"] == f"s3://sentinel-s1-l1c/GRD/2022/11/11/IW/DV/{name}/measurement/iw-vv.tiff"
    await source.wait_until_empty()
    dead = source.dead_letters
    assert dead is not None
    assert await dead.drain() == []
    assert await running.stop() == 0


def test_what_config_yaml_says_is_in_pipeline_yaml(converted: Path) -> None:
    """The table in docs/pipelines.md, line by line."""
    told = yaml.safe_load((converted / "sentinel1" / "pipeline.yaml").read_text())
    assert told == {
        "id": "sentinel1",
        "triggers": {"queue_url": "${SENTINEL1_QUEUE_URL}", "any_object": True, "once": True},
        "inventory": "stacworker_child.lambda_app:create_requests",
        "generator": {
            "type": "stacworker_child.lambda_items:create_items",
            "env": ["INVENTORY_LOCATION", "OUTPUT_LOCATION", "CHUNK_PARAMETER", "AWS_REGION", "AWS_DEFAULT_REGION"],
        },
        "collection": {"id": "sentinel1-grd", "function": "stacworker_child.lambda_app:create_collection"},
    }
