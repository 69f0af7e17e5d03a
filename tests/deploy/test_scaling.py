"""Who says how many pods a worker has, and by which queues."""

from __future__ import annotations

from tests.deploy.chart import (
    deployment,
    minimal,
    of_kind,
    render,
)


def test_autoscaling_leaves_replicas_to_the_scaler() -> None:
    """With a scaler a Deployment names no number of its own, which every upgrade would set back."""
    assert "replicas" not in deployment(minimal(items={"autoscaling": {"enabled": True}}))["spec"]
    assert deployment(minimal(items={"replicas": 3}))["spec"]["replicas"] == 3


def test_keda_counts_what_is_in_flight_and_scales_down_slowly() -> None:
    """A pod at work is not scaled away, and pods go one by one after a quiet time."""
    consumers = [{**minimal()["workers"]["items"]["config"]["consumers"][0], "max_in_flight": 900}]
    scaling = {"enabled": True, "minReplicas": 0, "messagesPerReplica": 1000}
    values = minimal(items={"autoscaling": scaling, "config": {"consumers": consumers}})
    documents = render(values)
    spec = of_kind(documents, "ScaledObject")["demo-stacworker-items"]["spec"]
    assert spec["triggers"] == [
        {
            "type": "aws-sqs-queue",
            "name": "consumer-items",
            "authenticationRef": {"name": "demo-stacworker-items"},
            "metadata": {
                "queueURL": "https://sqs.us-west-2.amazonaws.com/123456789012/items",
                "queueLength": "1000",
                "activationQueueLength": "0",
                "scaleOnInFlight": "true",
                "scaleOnDelayed": "false",
                "awsRegion": "us-west-2",
            },
        }
    ]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }
    auth = of_kind(documents, "TriggerAuthentication")["demo-stacworker-items"]["spec"]
    assert auth == {"podIdentity": {"provider": "aws", "identityOwner": "keda"}}


def test_queues_that_the_chart_does_not_know_are_counted_where_they_are_named() -> None:
    """Pods of pipelines are scaled by the queues that the values name."""
    urls = [f"https://sqs.us-west-2.amazonaws.com/123456789012/{name}" for name in ("naip", "landsat")]
    values = minimal(
        items={
            "autoscaling": {"enabled": True, "minReplicas": 0, "keda": {"extraQueueUrls": urls}},
            "config": {"consumers": [], "pipelines": {"folder": "/pipelines"}},
        }
    )
    triggers = of_kind(render(values), "ScaledObject")["demo-stacworker-items"]["spec"]["triggers"]
    assert [(each["name"], each["metadata"]["queueURL"]) for each in triggers] == [
        ("extra-0", urls[0]),
        ("extra-1", urls[1]),
    ]


def test_queues_have_triggers_of_different_names() -> None:
    """Consumers whose names differ in a dash, and queues that only the values name, are told apart."""
    (consumer,) = minimal()["workers"]["items"]["config"]["consumers"]
    names = ["a_b", "a-b", "a.b", "A-b", "extra-0"]
    keda = {"extraQueueUrls": ["https://sqs.us-west-2.amazonaws.com/123456789012/naip"]}
    values = minimal(
        items={
            "autoscaling": {"enabled": True, "keda": keda},
            "config": {"consumers": [{**consumer, "name": name} for name in names]},
        }
    )
    triggers = of_kind(render(values), "ScaledObject")["demo-stacworker-items"]["spec"]["triggers"]
    assert len({each["name"] for each in triggers}) == len(triggers) == 6
