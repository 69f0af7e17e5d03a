"""Every scenario in the chart's ci folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacworker import __version__
from stacworker.config import load_settings
from tests.deploy.chart import (
    CHART,
    ROOT,
    SCENARIOS,
    Document,
    minimal,
    of_kind,
    pods,
    render,
    rendered,
    settings_texts,
)
from tests.deploy.kubernetes import problems

scenarios = pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))


def values_of(path: Path) -> Document:
    values: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read settings from the rendered files alone."""
    monkeypatch.delenv("STACWORKER_CONFIG", raising=False)


def test_the_values_in_the_documentation_install() -> None:
    """What docs/kubernetes.md tells people to write is taken as it stands there."""
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n# values.yaml\n")[2].partition("```")[0]
    documents = render(yaml.safe_load(example), release="stacworker")
    assert {name for kind, name in ((each["kind"], each["metadata"]["name"]) for each in documents)} >= {
        "stacworker-items",
        "stacworker-requests",
        "stacworker-migrate",
    }
    assert [line for each in documents for line in problems(each)] == []


@scenarios
def test_helm_finds_nothing_to_warn_of(path: Path) -> None:
    """`helm lint --strict` has only information, no warning and no error."""
    import helm_python  # noqa: PLC0415 - only these tests need it

    report = helm_python.lint(CHART, values_of(path), strict=True)
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    assert report["errors"] in (None, [])


@scenarios
def test_kubernetes_would_take_every_document(path: Path) -> None:
    """Each document fits its schema strictly: Kubernetes' own, or the custom resource's."""
    documents = render(values_of(path))
    assert documents
    found = {f"{each['kind']} {each['metadata']['name']}": problems(each) for each in documents}
    assert {name: lines for name, lines in found.items() if lines} == {}


@scenarios
def test_stacworker_takes_every_settings_file(path: Path, tmp_path: Path) -> None:
    """What stands in a ConfigMap is what the daemon understands, without a warning of its own."""
    texts = settings_texts(render(values_of(path)))
    assert texts
    for name, text in texts.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        settings = load_settings(file)
        if "singleItemMessages: false" not in path.read_text(encoding="utf-8"):
            assert settings.warnings() == []


@scenarios
def test_names_are_used_once_and_fit(path: Path) -> None:
    """No two documents have the same kind and name, and no name is too long for a label."""
    ids = [(each["kind"], each["metadata"]["name"]) for each in render(values_of(path), release="r" * 53)]
    assert len(ids) == len(set(ids))
    assert [name for _, name in ids if len(name) > 63] == []


@scenarios
def test_every_mount_has_its_volume_and_every_reference_its_object(path: Path) -> None:
    """Pods mount volumes that they have, and ConfigMaps and accounts that the release makes."""
    values = values_of(path)
    documents = render(values)
    maps, accounts = of_kind(documents, "ConfigMap"), of_kind(documents, "ServiceAccount")
    for name, pod in pods(documents):
        volumes = {each["name"]: each for each in pod["volumes"]}
        for container in pod["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} <= set(volumes), name
        for volume in volumes.values():
            if "configMap" in volume:
                made = maps[volume["configMap"]["name"]]["data"]
                assert {each["key"] for each in volume["configMap"].get("items", ())} <= set(made), name
        own = [worker.get("serviceAccount") or {} for worker in values["workers"].values()]
        own += [values.get(each, {}).get("serviceAccount", {}) for each in ("migration", "defaults")]
        foreign = {values.get("serviceAccount", {}).get("name"), *(each.get("name") for each in own)}
        assert pod["serviceAccountName"] in {*accounts, *foreign}, name


@scenarios
def test_pods_are_locked_down(path: Path) -> None:
    """No root, no capabilities, nothing writable but /tmp, no token that nobody needs (docs/security.md)."""
    for name, pod in pods(render(values_of(path))):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            security = {key: value for key, value in container["securityContext"].items() if key != "privileged"}
            assert security == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert not container["securityContext"].get("privileged"), name
            env = {each["name"]: each.get("value") for each in container["env"]}
            mounts = {each["mountPath"] for each in container["volumeMounts"]}
            assert (env["HOME"], env["TMPDIR"]) == ("/tmp", "/tmp")
            assert "/tmp" in mounts, name


@scenarios
def test_selectors_choose_the_workers_own_pods_and_no_others(path: Path) -> None:
    """What belongs to one worker never chooses another's pods, nor the migration's or a test's."""
    documents = render(values_of(path))
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "Job")
        for name, each in of_kind(documents, kind).items()
    } | {name: each["metadata"]["labels"] for name, each in of_kind(documents, "Pod").items()}
    for kind in ("Deployment", "PodDisruptionBudget", "Service"):
        for name, each in of_kind(documents, kind).items():
            selector = each["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert [pod for pod, have in labels.items() if selector.items() <= have.items()] == [name]


def deployment(values: Document) -> Any:
    return of_kind(render(values), "Deployment")["demo-stacworker-items"]


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


def test_changed_settings_and_pipelines_replace_pods() -> None:
    """The checksum follows what pods read when they start."""

    def checksum(**items: Any) -> str:
        annotations = deployment(minimal(items=items))["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    sums = [
        checksum(),
        checksum(config={"drain_timeout_s": 59}),
        checksum(pipelines={"a": {"pipeline.yaml": "1"}}),
        checksum(pipelines={"a": {"pipeline.yaml": "2"}}),
    ]
    assert len(set(sums)) == 4
    assert checksum(replicas=2) == sums[0]


def test_the_migrations_login_wins_over_the_shared_one() -> None:
    """Whichever way the owner's login is given, nothing of the workers' login gets in the Job."""
    arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:"
    for shared, own, env, secret in (
        ({"existingSecret": {"name": "load"}}, {"secretArn": f"{arn}own"}, None, f"{arn}own"),
        ({"existingSecret": {"name": ""}, "secretArn": f"{arn}load"}, {"existingSecret": {"name": "own"}}, "own", None),
        ({"existingSecret": {"name": ""}, "secretArn": f"{arn}load"}, {"secretArn": f"{arn}own"}, None, f"{arn}own"),
    ):
        documents = render(minimal(database=shared, migration=own))
        job = of_kind(documents, "Job")["demo-stacworker-migrate"]["spec"]["template"]["spec"]
        named = {each["name"]: each for each in job["containers"][0]["env"]}.get("STACWORKER_DATABASE__DSN")
        assert (named["valueFrom"]["secretKeyRef"]["name"] if named else None) == env
        settings = yaml.safe_load(settings_texts(documents)["demo-stacworker-migrate"])
        assert settings.get("database", {}).get("secret_arn") == secret


def test_a_network_policy_lets_out_to_what_is_named_and_never_to_the_metadata() -> None:
    """No list that is empty opens a port to everybody: Kubernetes takes an empty `to` for all."""

    def egress(**changes: Any) -> dict[int, list[Any]]:
        documents = render(minimal(networkPolicy={"enabled": True, **changes}))
        rules = of_kind(documents, "NetworkPolicy")["demo-stacworker"]["spec"]["egress"]
        return {each["ports"][0]["port"]: [to["ipBlock"] for to in each.get("to", [])] for each in rules}

    assert egress(databaseCidrs=["10.2.0.0/16"], databasePort=6432, podIdentity=True) == {
        53: [],
        443: [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}],
        6432: [{"cidr": "10.2.0.0/16"}],
        80: [{"cidr": "169.254.170.23/32"}, {"cidr": "fd00:ec2::23/128"}],
    }
    assert egress(httpsCidrs=["::/0", "10.1.0.0/16"])[443] == [
        {"cidr": "::/0", "except": ["fd00:ec2::/32"]},
        {"cidr": "10.1.0.0/16"},
    ]
    for none in ([], None):
        assert set(egress(httpsCidrs=none, databaseCidrs=none)) == {53}


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
            "name": "items",
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
        ("extraQueueUrls[0]", urls[0]),
        ("extraQueueUrls[1]", urls[1]),
    ]


def test_a_worker_is_a_job_however_it_is_scraped() -> None:
    """Alerts tell workers apart by `job`: a PodMonitor gives the name that a ServiceMonitor takes from the Service."""
    documents = render(minimal(monitoring={"podMonitor": {"enabled": True}}))
    (endpoint,) = of_kind(documents, "PodMonitor")["demo-stacworker"]["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [
        {
            "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
            "targetLabel": "job",
            "replacement": "demo-stacworker-$1",
        }
    ]
    services = of_kind(render(minimal(monitoring={"serviceMonitor": {"enabled": True}})), "Service")
    assert set(services) == {"demo-stacworker-items"}


def test_alerts_can_be_left_out_and_their_runbooks_be_elsewhere() -> None:
    """The other alerts and all recordings stay as they are."""

    def rules(**changes: Any) -> list[Document]:
        documents = render(minimal(monitoring={"prometheusRule": {"enabled": True, **changes}}))
        made = of_kind(documents, "PrometheusRule").values()
        return [rule for each in made for group in each["spec"]["groups"] for rule in group["rules"]]

    before = rules()
    after = rules(runbookUrl="https://wiki.example.com/runbooks/", disabledAlerts=["StacworkerLoopLag"])
    assert {each.get("alert") for each in before} - {each.get("alert") for each in after} == {"StacworkerLoopLag"}
    links = {each["alert"]: each["annotations"].pop("runbook_url") for each in after if "alert" in each}
    assert links == {name: f"https://wiki.example.com/runbooks/{name}.md" for name in links}
    for each in before:
        each.get("annotations", {}).pop("runbook_url", None)
    assert after == [each for each in before if each.get("alert") != "StacworkerLoopLag"]


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


def test_the_migration_may_use_an_account_that_exists() -> None:
    """Where accounts are made elsewhere, the Job takes the one that is named and none is made."""
    documents = render(minimal(migration={"serviceAccount": {"create": False, "name": "owner"}}))
    assert set(of_kind(documents, "ServiceAccount")) == {"demo-stacworker"}
    job = of_kind(documents, "Job")["demo-stacworker-migrate"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "owner"


def test_the_migration_needs_nothing_of_the_release() -> None:
    """Before an install nothing of the release is there: the Job's account and settings are hooks that come first."""
    documents = render(values_of(CHART / "ci" / "eks-keda-values.yaml"))
    hooks = {
        each["kind"]: each["metadata"]["annotations"]
        for each in documents
        if each["metadata"]["name"] == "demo-stacworker-migrate"
    }
    assert set(hooks) == {"Job", "ConfigMap", "ServiceAccount"}
    assert {each["helm.sh/hook"] for each in hooks.values()} == {"pre-install,pre-upgrade"}
    weights = {kind: int(each["helm.sh/hook-weight"]) for kind, each in hooks.items()}
    assert max(weights["ConfigMap"], weights["ServiceAccount"]) < weights["Job"]
    role = hooks["ServiceAccount"]["eks.amazonaws.com/role-arn"]
    assert role == "arn:aws:iam::123456789012:role/stacworker-migrate"
    container = of_kind(documents, "Job")["demo-stacworker-migrate"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["migrate", "--pgstac", "--pgstac-version=0.9.8"]
    text = settings_texts(documents)["demo-stacworker-migrate"]
    assert yaml.safe_load(text)["database"]["secret_arn"].endswith("pgstac-owner-AbCdEf")


def test_the_migration_has_a_login_of_its_own() -> None:
    """With a Secret for the owner of the schemas the Job gets that one, and the workers theirs."""
    documents = render(minimal(migration={"existingSecret": {"name": "owner"}}))
    named = {}
    for name, pod in pods(documents):
        env = {each["name"]: each for each in pod["containers"][0]["env"]}
        named[name] = env["STACWORKER_DATABASE__DSN"]["valueFrom"]["secretKeyRef"]
    assert named == {
        "demo-stacworker-items": {"name": "stacworker-database", "key": "dsn"},
        "demo-stacworker-items-check": {"name": "stacworker-database", "key": "dsn"},
        "demo-stacworker-migrate": {"name": "owner", "key": "dsn"},
    }


def test_a_worker_without_a_database_gets_no_login() -> None:
    """Who only generates for another queue has neither the DSN nor the secret's ARN."""
    queue = "https://sqs.us-west-2.amazonaws.com/123456789012"
    consumer = {
        "name": "requests",
        "type": "generate",
        "queue_url": f"{queue}/requests",
        "output": f"sqs:{queue}/items",
    }
    config = {"consumers": [consumer], "generators": {"mine": {"type": "my_items:create_items"}}}
    for database in (minimal()["database"], {"secretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:a"}):
        values = {"workers": {"requests": {"config": config}}, "database": database}
        documents = render(values)
        pod = of_kind(documents, "Deployment")["demo-stacworker-requests"]["spec"]["template"]["spec"]
        assert "STACWORKER_DATABASE__DSN" not in {each["name"] for each in pod["containers"][0]["env"]}
        assert "database" not in yaml.safe_load(settings_texts(documents)["demo-stacworker-requests"])
        assert of_kind(documents, "Job") == {}, "there is nothing to migrate"


def test_dashboards_and_rules_come_from_the_charts_files(tmp_path: Path) -> None:
    """Each file becomes a resource, word for word, whatever braces stand in it."""
    chart = tmp_path / "stacworker"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("files"))
    dashboard = {"title": "Overview", "panels": [{"legendFormat": "{{queue}}"}]}
    alert = {"alert": "DeadLetters", "expr": "x > 0", "annotations": {"summary": "{{ $labels.queue }}"}}
    rules = {"groups": [{"name": "stacworker", "rules": [alert]}]}
    (chart / "files" / "dashboards").mkdir(parents=True)
    (chart / "files" / "dashboards" / "overview.json").write_text(json.dumps(dashboard, indent=2), encoding="utf-8")
    (chart / "files" / "rules").mkdir()
    (chart / "files" / "rules" / "stacworker_alerts.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    monitoring = {"prometheusRule": {"enabled": True, "labels": {"release": "p"}}, "dashboards": {"enabled": True}}

    documents = render(minimal(monitoring=monitoring), chart=chart)

    rule = of_kind(documents, "PrometheusRule")["demo-stacworker-stacworker-alerts"]
    assert (rule["spec"], rule["metadata"]["labels"]["release"], problems(rule)) == (rules, "p", [])
    shown = of_kind(documents, "ConfigMap")["demo-stacworker-dashboard-overview"]
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shown["data"]["demo-stacworker-overview.json"]) == dashboard


def test_notes_name_the_workers_and_what_is_missing() -> None:
    """After an install people read what was made, how to look at it, and what is switched off."""
    values = minimal(migration={"enabled": False})
    text = next(text for path, text in rendered(values).items() if path.endswith("NOTES.txt"))
    assert "items: 1 pods" in text
    assert "helm test demo --namespace stac --logs" in text
    assert "run `stacworker migrate`" in text
    assert "Nothing scrapes /metrics" in text


def test_the_chart_runs_the_version_it_lies_beside() -> None:
    """The chart's appVersion and its default tag are stacworker's own version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert (chart["appVersion"], values["image"]["tag"]) == (__version__, __version__)


def test_the_migrations_arguments_are_commands_that_exist() -> None:
    """What pods are started with are commands and options of this stacworker."""
    from typer.main import get_command  # noqa: PLC0415

    from stacworker.cli.commands import app  # noqa: PLC0415

    commands = get_command(app).commands  # type: ignore[attr-defined]
    values = values_of(CHART / "ci" / "eks-keda-values.yaml")
    for name, pod in pods(render(values)):
        command, *options = pod["containers"][0]["args"]
        known = {option for each in commands[command].params for option in each.opts}
        assert {option.partition("=")[0] for option in options} <= known, name
