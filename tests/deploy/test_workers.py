"""What a worker becomes: its pods, settings, pipelines and account."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.deploy.chart import (
    deployment,
    minimal,
    of_kind,
    pods,
    render,
    settings_texts,
)
from tests.deploy.kubernetes import problems


def test_probes_ask_the_right_pages() -> None:
    """Start and life are asked of /livez, readiness of /readyz, on the port of the settings."""
    values = minimal(items={"config": {"http": {"port": 9000}}})
    container = deployment(values)["spec"]["template"]["spec"]["containers"][0]
    asked = {key: container[f"{key}Probe"]["httpGet"] for key in ("startup", "liveness", "readiness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_changed_settings_replace_pods_and_unchanged_ones_do_not() -> None:
    """The annotation with the settings' checksum changes with them, and with nothing else."""

    def checksum(**changes: Any) -> str:
        annotations = deployment(minimal(**changes))["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    same = checksum()
    assert checksum() == same
    assert checksum(items={"resources": {"limits": {"memory": "2Gi"}}}) == same
    assert checksum(items={"config": {"log": {"level": "debug"}}}) != same


def test_a_worker_says_only_what_differs() -> None:
    """Mappings are merged over the defaults, false and 0 count, lists are replaced, null removes."""
    values = minimal(
        defaults={
            "config": {"log": {"level": "debug", "format": "json"}, "fetch": {"max_concurrency": 3}, "http": None},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "preStopSeconds": 7,
        },
        items={"config": {"log": {"level": "info"}, "fetch": None}, "tolerations": [], "preStopSeconds": 0},
    )
    documents = render(values)
    settings = yaml.safe_load(settings_texts(documents)["demo-stacworker-items"])
    assert settings["log"] == {"level": "info", "format": "json"}
    assert "fetch" not in settings
    pod = of_kind(documents, "Deployment")["demo-stacworker-items"]["spec"]["template"]["spec"]
    assert "tolerations" not in pod
    assert "lifecycle" not in pod["containers"][0]


def test_the_folder_of_environments_is_the_settings_one() -> None:
    """The image names a folder by variable; where the settings name another, a variable says so too."""
    values = minimal(items={"config": {"environments": {"folder": "/tmp/environments"}}})
    env = deployment(values)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "STACWORKER_ENVIRONMENTS__FOLDER", "value": "/tmp/environments"} in env


def test_pods_that_are_recreated_roll_nothing() -> None:
    """With `Recreate` the defaults' `rollingUpdate` is dropped: Kubernetes takes no such pair."""
    assert deployment(minimal(items={"strategy": {"type": "Recreate"}}))["spec"]["strategy"] == {"type": "Recreate"}


def test_names_that_yaml_takes_for_something_else_stay_names() -> None:
    """Numbers and words for true and false may be names of releases, workers, consumers, accounts and keys."""
    (consumer,) = minimal()["workers"]["items"]["config"]["consumers"]
    worker = {
        "serviceAccount": {"name": "1e3"},
        "autoscaling": {"enabled": True},
        "config": {"consumers": [{**consumer, "name": "1"}]},
    }
    values = minimal(
        workers={"no": worker, "on": worker, "y": {**worker, "autoscaling": {"enabled": False}}},
        fullnameOverride="2024",
        serviceAccount={"name": "123"},
        migration={"serviceAccount": {"name": "456"}},
        database={"existingSecret": {"name": "0x1", "key": "1"}},
        networkPolicy={"enabled": True, "databaseCidrs": ["::/0"], "httpsCidrs": ["::/0"]},
        monitoring={"serviceMonitor": {"enabled": True}},
    )
    documents = render(values, release="2024")
    assert {each["metadata"]["name"]: problems(each) for each in documents if problems(each)} == {}
    assert set(of_kind(documents, "Deployment")) == {"2024-items", "2024-no", "2024-on", "2024-y"}
    assert set(of_kind(documents, "ServiceAccount")) == {"123", "456", "1e3"}


def test_workers_that_name_one_account_share_it() -> None:
    """An account that two workers name, or a worker and the release, is made once, as all of them want it."""
    shared = {"serviceAccount": {"name": "x", "annotations": {"example.com/role": "a"}}}
    documents = render(minimal(workers={"more": minimal()["workers"]["items"]}, defaults=shared))
    accounts = [each["metadata"]["name"] for each in documents if each["kind"] == "ServiceAccount"]
    assert sorted(accounts) == ["demo-stacworker", "demo-stacworker-migrate", "x"]
    assert of_kind(documents, "ServiceAccount")["x"]["metadata"]["annotations"] == {"example.com/role": "a"}
    users = {name: each["serviceAccountName"] for name, each in pods(documents) if not name.endswith("migrate")}
    assert set(users.values()) == {"x"}


@pytest.mark.parametrize(
    "text",
    ["\n  a: 1\n", "  a: 1\nb: 2", "", "\n", "a: 1", "a\n\n\n", "\ta\n  \n b", "a: '{{ x }}'\r\n", "# ü\n...\n---\n"],
)
def test_files_of_pipelines_arrive_as_they_are(text: str) -> None:
    """However a text begins and ends, the pod finds it unchanged, and no two files have one key."""
    pipelines = {
        "a": {"pipeline.yaml": text, "b--c": "1", "-x": "2"},
        "a--b": {"pipeline.yaml": "", "c": "3"},
        "a-": {"pipeline.yaml": "", "x": "4"},
    }
    documents = render(minimal(items={"pipelines": pipelines}))
    data = of_kind(documents, "ConfigMap")["demo-stacworker-items-pipelines"]["data"]
    pod = of_kind(documents, "Deployment")["demo-stacworker-items"]["spec"]["template"]["spec"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "pipelines")
    found = {each["path"]: data[each["key"]] for each in volume["configMap"]["items"]}
    assert found == {f"{id_}/{name}": value for id_, files in pipelines.items() for name, value in files.items()}


def test_the_tests_pods_have_what_the_workers_have() -> None:
    """A test that lacked what containers that run first prepare would fail, or prove nothing."""
    values = minimal(items={"initContainers": [{"name": "wait", "image": "busybox:1.37"}]})
    found = {name: pod.get("initContainers") for name, pod in pods(render(values))}
    assert found["demo-stacworker-items-check"] == found["demo-stacworker-items"] is not None


def test_large_numbers_stay_whole() -> None:
    """Helm reads numbers as floats; none may arrive as 2.56e+08."""
    consumers = [{**minimal()["workers"]["items"]["config"]["consumers"][0], "max_in_flight_bytes": 256_000_000}]
    text = settings_texts(render(minimal(items={"config": {"consumers": consumers}})))["demo-stacworker-items"]
    assert "max_in_flight_bytes: 256000000" in text


def test_labels_and_annotations_of_pods_reach_every_pod() -> None:
    """What a cluster asks of pods it asks of the migration's and the tests' too."""
    asked = {"podLabels": {"sidecar.istio.io/inject": "false"}, "podAnnotations": {"example.com/scan": "no"}}
    documents = render(minimal(defaults=asked))
    templates = [
        each["spec"]["template"] for kind in ("Deployment", "Job") for each in of_kind(documents, kind).values()
    ]
    templates += of_kind(documents, "Pod").values()
    assert len(templates) == 3
    for each in templates:
        assert each["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert each["metadata"]["annotations"]["example.com/scan"] == "no"


def test_changed_pipelines_replace_pods() -> None:
    """The checksum follows the files of pipelines too, which pods read when they start."""

    def checksum(**items: Any) -> str:
        annotations = deployment(minimal(items=items))["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    sums = [
        checksum(),
        checksum(pipelines={"a": {"pipeline.yaml": "1"}}),
        checksum(pipelines={"a": {"pipeline.yaml": "2"}}),
    ]
    assert len(set(sums)) == 3
