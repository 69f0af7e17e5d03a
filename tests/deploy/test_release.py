"""What a release has beside its workers: monitoring, the network's rules, notes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.chart import (
    CHART,
    Document,
    minimal,
    of_kind,
    render,
    rendered,
)
from tests.deploy.kubernetes import problems


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


def test_a_network_policy_lets_in_whom_it_names_and_else_the_cluster() -> None:
    """Metrics and health are for those that are named; where nobody is, for pods and nobody outside."""

    def ingress(**changes: Any) -> list[Document]:
        documents = render(minimal(networkPolicy={"enabled": True, **changes}))
        rules: list[Document] = of_kind(documents, "NetworkPolicy")["demo-stacworker"]["spec"]["ingress"]
        return rules

    named = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    assert ingress(ingressFrom=named) == [{"ports": [{"protocol": "TCP", "port": "http"}], "from": named}]
    for none in ([], None):
        assert ingress(ingressFrom=none)[0]["from"] == [{"namespaceSelector": {}}]
