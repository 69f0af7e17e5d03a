"""Every scenario in the chart's ci folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stacworker import __version__
from stacworker.config import load_settings
from tests.deploy.chart import (
    CHART,
    ROOT,
    SCENARIOS,
    of_kind,
    pods,
    render,
    settings_texts,
    values_of,
)
from tests.deploy.kubernetes import problems

scenarios = pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))


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
