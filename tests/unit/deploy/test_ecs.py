"""What must hold between the numbers, names and permissions of deploy/ecs/stacworker.yaml."""

from __future__ import annotations

import json
import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from cfnlint.api import lint_file
from cfnlint.config import ManualArgs

from stacworker.config import load_settings
from stacworker.lifecycle import _OVERTIME_S
from stacworker.settings import ConsumerSettings, Settings
from tests.unit.deploy.template import Template

ROOT = Path(__file__).parents[3]
PATH = ROOT / "deploy" / "ecs" / "stacworker.yaml"
FARGATE_MAX_STOP_S = 120
MARGIN_S = 10
DAY_S = 86_400
GIVEN = {
    "Image": "123456789012.dkr.ecr.us-west-2.amazonaws.com/stacworker:0.1.0",
    "VpcId": "vpc-1",
    "SubnetIds": "subnet-1,subnet-2",
    "DatabaseSecretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:stac-AbCdEf",
    "DatabaseSecurityGroupId": "sg-1",
}
EVERYTHING = {
    **GIVEN,
    "BucketName": "granules",
    "BucketPrefix": "items/",
    "EcrRepositoryArn": "arn:aws:ecr:us-west-2:123456789012:repository/stacworker",
    "DatabaseSecretKeyArn": "arn:aws:kms:us-west-2:123456789012:key/1",
    "Requests": "generators",
    "Generators": '{"naip": {"type": "stactools", "packages": ["stactools-naip==0.5.0"]}}',
}
PIPELINES = {**EVERYTHING, "Requests": "pipelines"}


def container(template: Template) -> dict[str, Any]:
    """Return the task's one container."""
    (found,) = template.properties("TaskDefinition")["ContainerDefinitions"]
    return dict(found)


def environment(template: Template) -> dict[str, str]:
    """Return what the container finds in its environment."""
    return {each["Name"]: str(each["Value"]) for each in container(template)["Environment"]}


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that reads settings as the container does."""

    def read(template: Template) -> Settings:
        for name in os.environ:
            if name.startswith("STACWORKER_"):
                monkeypatch.delenv(name)
        for name, value in environment(template).items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return read


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    """Return what a role allows, actions and resources as lists."""
    (policy,) = template.properties(role)["Policies"]
    return [
        {
            **each,
            "Action": [each["Action"]] if isinstance(each["Action"], str) else each["Action"],
            "Resource": [each["Resource"]] if isinstance(each["Resource"], str) else each["Resource"],
        }
        for each in policy["PolicyDocument"]["Statement"]
    ]


def test_cfn_lint_finds_nothing() -> None:
    """Neither errors nor warnings nor advice."""
    found = lint_file(PATH, config=ManualArgs(include_checks=["I"], regions=["us-west-2", "eu-central-1"]))
    assert [f"{each.linenumber}: {each.rule.id} {each.message}" for each in found] == []


@pytest.mark.parametrize("parameters", [GIVEN, EVERYTHING, PIPELINES], ids=["little", "generators", "pipelines"])
def test_the_container_finds_settings_that_load(parameters: dict[str, str], settings_of: Any) -> None:
    """The environment says what the parameters ask for, in keys and values that stacworker knows."""
    template = Template(PATH, **parameters)
    settings = settings_of(template)
    queues = {each.name: each.queue_url.rpartition("/")[2] for each in settings.consumers}
    generates = parameters.get("Requests") == "generators"
    assert queues == {"items": "stac-items", **({"requests": "stac-requests"} if generates else {})}
    assert settings.database.secret_arn == GIVEN["DatabaseSecretArn"]
    assert settings.fetch.allowed_buckets == (("granules",) if "BucketName" in parameters else ())
    assert settings.collections["default"].create_missing is False
    assert list(settings.generators) == (["naip"] if generates else [])
    pipelines = parameters.get("Requests") == "pipelines"
    assert settings.pipelines.folder == ("/pipelines" if pipelines else None)
    assert ("REQUESTS_QUEUE_URL" in environment(template)) == pipelines


def test_every_choice_of_parameters_loads(settings_of: Any) -> None:
    """No allowed value is one that stacworker refuses."""
    raw = Template(PATH, **GIVEN).raw["Parameters"]
    for create, requests in product(raw["CreateMissingCollections"]["AllowedValues"], raw["Requests"]["AllowedValues"]):
        settings_of(Template(PATH, **{**EVERYTHING, "CreateMissingCollections": create, "Requests": requests}))
    for name, key in (("ConnectionsPerTask", "MinValue"), ("ConnectionsPerTask", "MaxValue")):
        settings_of(Template(PATH, **GIVEN, **{name: str(raw[name][key])}))


def test_a_drain_ends_before_fargate_kills(settings_of: Any) -> None:
    """The longest drain that may be chosen, what comes after it, and a margin fit in what Fargate allows."""
    template = Template(PATH, **GIVEN)
    longest = template.raw["Parameters"]["DrainTimeout"]["MaxValue"]
    stop_s = container(template)["StopTimeout"]
    assert longest + _OVERTIME_S + MARGIN_S <= stop_s <= FARGATE_MAX_STOP_S
    chosen = settings_of(Template(PATH, **GIVEN, DrainTimeout=str(longest)))
    assert chosen.drain_timeout_s == longest
    assert chosen.ecs.scale_in_protection, "what takes longer than that is protected"
    # A receive under way is not cancelled: a drain is no shorter than it.
    assert template.raw["Parameters"]["DrainTimeout"]["MinValue"] > max(each.wait_time_s for each in chosen.consumers)


@pytest.mark.parametrize("name", ["Items", "Requests"])
def test_queues_give_up_late_and_keep_what_they_gave_up(name: str) -> None:
    """Five tries at least; dead letters stay 14 days, longer than messages; the queue alone may put them there."""
    template = Template(PATH, **EVERYTHING)
    queue, dead = template.properties(f"{name}Queue"), template.properties(f"{name}DeadLetters")
    arn = f"arn:aws:sqs:us-west-2:123456789012:{dead['QueueName']}"
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": arn, "maxReceiveCount": 5}
    assert dead["MessageRetentionPeriod"] == 14 * DAY_S > queue["MessageRetentionPeriod"]
    source = f"arn:aws:sqs:us-west-2:123456789012:{queue['QueueName']}"
    assert dead["RedriveAllowPolicy"] == {"redrivePermission": "byQueue", "sourceQueueArns": [source]}
    for each in (f"{name}Queue", f"{name}DeadLetters"):
        # A stack that could not be made takes its empty queues with it: else its next try would meet their names.
        assert template.resources[each]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert template.resources[each]["UpdateReplacePolicy"] == "Retain"


def test_queues_and_consumers_agree_on_leases(settings_of: Any) -> None:
    """The queue's own visibility timeout is the consumer's lease, so that who looks at one knows the other."""
    template = Template(PATH, **EVERYTHING)
    leases = {each.name: each.visibility_timeout_s for each in settings_of(template).consumers}
    queues = {"items": "ItemsQueue", "requests": "RequestsQueue"}
    assert leases == {name: template.properties(queue)["VisibilityTimeout"] for name, queue in queues.items()}


def test_only_a_backlog_makes_more_tasks(settings_of: Any) -> None:
    """What one task may hold is less than what it should have before it: else its own hands would scale it out."""
    template = Template(PATH, **EVERYTHING)
    held: dict[str, ConsumerSettings] = {each.name: each for each in settings_of(template).consumers}
    for consumer, policy, parameter in (
        ("items", "ItemsScaling", "ItemsPerTask"),
        ("requests", "RequestsScaling", "RequestsPerTask"),
    ):
        tracking = template.properties(policy)["TargetTrackingScalingPolicyConfiguration"]
        limits = template.raw["Parameters"][parameter]
        assert tracking["TargetValue"] == limits["Default"] >= limits["MinValue"] > held[consumer].max_in_flight
        assert tracking["ScaleInCooldown"] > tracking["ScaleOutCooldown"]
        metrics = {each["Id"]: each for each in tracking["CustomizedMetricSpecification"]["Metrics"]}
        assert [name for name, each in metrics.items() if each["ReturnData"]] == ["pertask"]
        for name, of_queue in (("waiting", "Visible"), ("held", "NotVisible")):
            metric = metrics[name]["MetricStat"]["Metric"]
            assert metric["MetricName"] == f"ApproximateNumberOfMessages{of_queue}"
            assert metric["Dimensions"] == [{"Name": "QueueName", "Value": f"stac-{consumer}"}]
        assert metrics["tasks"]["MetricStat"]["Metric"]["MetricName"] == "RunningTaskCount"


@pytest.mark.parametrize("policy", ["ItemsScaling", "RequestsScaling"])
@pytest.mark.parametrize(
    ("waiting", "held", "tasks", "expected"), [(900, 100, 4, 250), (0, 100, 4, 25), (900, 100, 0, 1000), (0, 0, 3, 0)]
)
def test_the_scaling_figure_is_the_backlog_of_one_task(
    policy: str, waiting: int, held: int, tasks: int, expected: int
) -> None:
    """What waits and what is in hand, divided by the tasks that run; with none, as one would see it."""
    tracking = Template(PATH, **EVERYTHING).properties(policy)["TargetTrackingScalingPolicyConfiguration"]
    (expression,) = (
        each["Expression"] for each in tracking["CustomizedMetricSpecification"]["Metrics"] if each["ReturnData"]
    )
    # CloudWatch's arithmetic is Python's, but for IF.
    known = {
        "waiting": waiting,
        "held": held,
        "tasks": tasks,
        "IF": lambda condition, yes, no: yes if condition else no,
    }
    assert eval(expression, {"__builtins__": {}}, known) == expected


def test_the_worker_may_do_what_it_does_and_no_more() -> None:
    """Action by action, resource by resource."""
    found = {
        each["Sid"]: (each["Action"], each["Resource"]) for each in statements(Template(PATH, **EVERYTHING), "TaskRole")
    }
    arn = "arn:aws:sqs:us-west-2:123456789012:stac-"
    taking = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
    assert found == {
        "Queues": (taking, [f"{arn}items", f"{arn}requests"]),
        "DeadLetters": (
            ["sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"],
            [f"{arn}items-dead", f"{arn}requests-dead"],
        ),
        "ScaleInProtection": (["ecs:UpdateTaskProtection"], ["arn:aws:ecs:us-west-2:123456789012:task/Cluster/*"]),
        "DatabaseLogin": (["secretsmanager:GetSecretValue"], [GIVEN["DatabaseSecretArn"]]),
        "DatabaseLoginKey": (["kms:Decrypt"], [EVERYTHING["DatabaseSecretKeyArn"]]),
        "Objects": (["s3:GetObject"], ["arn:aws:s3:::granules/items/*"]),
        "ToTellMissingFromForbidden": (["s3:ListBucket"], ["arn:aws:s3:::granules"]),
    }


def test_without_bucket_and_requests_there_are_no_rights_to_them() -> None:
    """What is not asked for is neither made nor allowed."""
    template = Template(PATH, **GIVEN)
    asked = [each["Sid"] for each in statements(template, "TaskRole")]
    assert asked == ["Queues", "DeadLetters", "ScaleInProtection", "DatabaseLogin"]
    assert [each["Sid"] for each in statements(template, "ExecutionRole")] == ["Logs"]
    assert not [name for name in {*template.resources, *template.outputs()} if name.startswith("Requests")]


def test_no_role_allows_whole_services() -> None:
    """No action has a wildcard; everything is a resource only where AWS knows no other."""
    template = Template(PATH, **EVERYTHING)
    for role in ("TaskRole", "ExecutionRole"):
        for each in statements(template, role):
            assert not [action for action in each["Action"] if "*" in action]
            assert "*" not in each["Resource"] or each["Action"] == ["ecr:GetAuthorizationToken"]
        (trust,) = template.properties(role)["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}


def test_only_the_own_topic_sends_to_a_queue() -> None:
    """A service may send only for the topic's sake; nobody without TLS."""
    template = Template(PATH, **EVERYTHING)
    for name in ("Items", "Requests"):
        allowed, denied = template.properties(f"{name}QueuePolicy")["PolicyDocument"]["Statement"]
        assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": f"{name}Topic"}}
        assert (denied["Effect"], denied["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_the_container_is_strict_and_fits_the_image() -> None:
    """Not root, nothing writable but /tmp, which the image declares so that Fargate gives everybody rights in it."""
    found = container(Template(PATH, **GIVEN))
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert found["ReadonlyRootFilesystem"] is True
    assert found["LinuxParameters"] == {"Capabilities": {"Drop": ["ALL"]}}
    assert found["User"].partition(":")[0] == "10001"
    assert [mount["ContainerPath"] for mount in found["MountPoints"]] == ["/tmp"]
    assert 'VOLUME ["/tmp"]' in dockerfile
    assert json.dumps(found["HealthCheck"]["Command"][1:]) in dockerfile


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("example.com/stacworker:0.1.0", True),
        ("123456789012.dkr.ecr.us-west-2.amazonaws.com/a/stacworker:latest-1", True),
        (f"example.com/stacworker@sha256:{'0' * 64}", True),
        ("example.com:5000/stacworker:latest", False),
        ("example.com/stacworker", False),
    ],
)
def test_an_image_has_a_version(image: str, *, allowed: bool) -> None:
    """Neither latest nor nothing: nobody would know what runs."""
    pattern = Template(PATH, **GIVEN).raw["Parameters"]["Image"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, image)) == allowed


TOPIC = "arn:aws:sns:us-west-2:123456789012:alarms"
TOO_OLD = ("ApproximateAgeOfOldestMessage", "GreaterThanThreshold", 900, 5, "notBreaching")
DIED = ("ApproximateNumberOfMessagesVisible", "GreaterThanThreshold", 0, 1, "notBreaching")


def test_alarms_watch_every_queue_and_the_tasks() -> None:
    """Age and dead letters of both queues, what is in flight, and that a task runs: what of, and when they fire."""
    template = Template(PATH, **EVERYTHING, AlarmTopicArn=TOPIC, OldestMessageAge="900")
    alarms = {
        name: each["Properties"]
        for name, each in template.resources.items()
        if each["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert {
        name: (
            each["Dimensions"][-1]["Value"],
            each["MetricName"],
            each["ComparisonOperator"],
            int(each["Threshold"]),
            each["EvaluationPeriods"],
            each["TreatMissingData"],
        )
        for name, each in alarms.items()
    } == {
        "ItemsTooOld": ("stac-items", *TOO_OLD),
        "RequestsTooOld": ("stac-requests", *TOO_OLD),
        "ItemsDied": ("stac-items-dead", *DIED),
        "RequestsDied": ("stac-requests-dead", *DIED),
        # Of the 120,000 that SQS allows.
        "ItemsInFlight": (
            "stac-items",
            "ApproximateNumberOfMessagesNotVisible",
            "GreaterThanThreshold",
            100_000,
            5,
            "notBreaching",
        ),
        # No task tells nothing, so nothing is the alarm.
        "NoTasks": ("Service.Name", "RunningTaskCount", "LessThanThreshold", 1, 5, "breaching"),
    }
    for each in alarms.values():
        assert (each["Statistic"], each["Period"]) == ("Maximum", 60)
        assert each["AlarmActions"] == each["OKActions"] == [TOPIC]
        assert each["Namespace"] == ("ECS/ContainerInsights" if each["MetricName"] == "RunningTaskCount" else "AWS/SQS")


def test_without_a_topic_alarms_tell_nobody() -> None:
    """They are there to be looked at."""
    resources = Template(PATH, **GIVEN).resources.values()
    actions = [each["Properties"]["AlarmActions"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert actions == [[]] * 4


def test_a_deployment_keeps_what_runs_until_the_new_one_works() -> None:
    """No fewer tasks than before while one rolls out, back to the old one where it fails; scaling says how many."""
    service = Template(PATH, **EVERYTHING).resources["Service"]
    assert service["Properties"]["DeploymentConfiguration"] == {
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
    }
    assert "DesiredCount" not in service["Properties"], "each update of the stack would undo what scaling has set"
    # Tasks reach their database, and their queue tells them of its topic, before the first one starts.
    assert service["DependsOn"] == ["DatabaseIngress", "ItemsQueuePolicy"]


@pytest.mark.parametrize("name", ["Items", "Requests"])
def test_subscriptions_keep_the_envelope(name: str) -> None:
    """Not raw: the topic's time of publication says which version of an item is the newest."""
    assert Template(PATH, **EVERYTHING).properties(f"{name}Subscription") == {
        "TopicArn": f"{name}Topic",
        "Protocol": "sqs",
        "Endpoint": f"arn:aws:sqs:us-west-2:123456789012:stac-{name.lower()}",
    }


def test_only_the_own_bucket_tells_the_topic() -> None:
    """Of this account: a bucket's name alone may be somebody else's tomorrow."""
    (allowed,) = Template(PATH, **EVERYTHING).properties("ItemsTopicPolicy")["PolicyDocument"]["Statement"]
    assert allowed["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::granules"},
        "StringEquals": {"aws:SourceAccount": "123456789012"},
    }
    assert (allowed["Effect"], allowed["Action"]) == ("Allow", "sns:Publish")
    assert allowed["Principal"] == {"Service": "s3.amazonaws.com"}


def test_tasks_reach_aws_and_the_database_alone() -> None:
    """HTTPS anywhere, the database's port to its group only; nobody gets in."""
    template = Template(PATH, **EVERYTHING, DatabasePort="6432")
    group = template.properties("SecurityGroup")
    rules = [{key: each[key] for key in each if key != "Description"} for each in group["SecurityGroupEgress"]]
    assert [{**each, "FromPort": int(each["FromPort"]), "ToPort": int(each["ToPort"])} for each in rules] == [
        {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0"},
        {"IpProtocol": "tcp", "FromPort": 6432, "ToPort": 6432, "DestinationSecurityGroupId": "sg-1"},
    ]
    assert "SecurityGroupIngress" not in group
    opened = template.properties("DatabaseIngress")
    assert (opened["GroupId"], opened["SourceSecurityGroupId"], opened["IpProtocol"]) == (
        "sg-1",
        "SecurityGroup",
        "tcp",
    )
    assert int(opened["FromPort"]) == int(opened["ToPort"]) == 6432


def test_the_log_never_stops_the_work() -> None:
    """With CloudWatch away, lines are dropped rather than waited for."""
    assert container(Template(PATH, **GIVEN))["LogConfiguration"] == {
        "LogDriver": "awslogs",
        "Options": {
            "awslogs-group": "LogGroup",
            "awslogs-region": "us-west-2",
            "awslogs-stream-prefix": "stacworker",
            "mode": "non-blocking",
            "max-buffer-size": "25m",
        },
    }


def test_the_documentation_names_every_permission_and_parameter() -> None:
    """docs/ecs.md lists the policies action by action, and what can be chosen."""
    text = (ROOT / "docs" / "ecs.md").read_text(encoding="utf-8")
    template = Template(PATH, **EVERYTHING)
    actions = {
        action
        for role in ("TaskRole", "ExecutionRole")
        for each in statements(template, role)
        for action in each["Action"]
    }
    missing = sorted(f"`{name}`" for name in (*actions, *template.raw["Parameters"]) if f"`{name}`" not in text)
    assert missing == []


def test_compose_runs_the_image_strictly() -> None:
    """compose.yaml gives the worker as long as its drain takes, and no more rights than a cluster would."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    worker = services["stacworker"]
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert worker["security_opt"] == ["no-new-privileges:true"]
    drain_s = float(worker["environment"]["STACWORKER_DRAIN_TIMEOUT_S"])
    assert float(worker["stop_grace_period"].removesuffix("s")) >= drain_s + _OVERTIME_S
