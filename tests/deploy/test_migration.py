"""The Job that migrates the database, and who gets its login."""

from __future__ import annotations

import pytest
import yaml

from tests.deploy.chart import (
    CHART,
    minimal,
    of_kind,
    pods,
    render,
    settings_texts,
    values_of,
)


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
    assert container["args"] == ["migrate", "--pgstac", "--pgstac-version=0.9.8", "--grant=stac_loader"]
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


@pytest.mark.parametrize("role", ["loader", 'we"ird: #role', "2024"])
def test_the_migration_lets_the_workers_login_load(role: str) -> None:
    """The role is one argument of the Job, whatever its name; without one nothing is granted."""
    for more, arguments in (({}, ["migrate"]), ({"grantTo": role}, ["migrate", f"--grant={role}"])):
        job = of_kind(render(minimal(migration=more)), "Job")["demo-stacworker-migrate"]
        assert job["spec"]["template"]["spec"]["containers"][0]["args"] == arguments
