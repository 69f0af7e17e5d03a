"""A CloudFormation template as CloudFormation would see it with some parameters, as far as these tests need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

REGION, ACCOUNT, STACK = "us-west-2", "123456789012", "stac"
_PSEUDO = {
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::StackName": STACK,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}
_NOTHING = object()


class Template:
    """A template with parameters; what is not given has its default."""

    def __init__(self, path: Path, **parameters: str) -> None:
        self.raw, problems = decode(str(path))
        assert not problems
        defaults = {name: each["Default"] for name, each in self.raw["Parameters"].items() if "Default" in each}
        self._values = {**_PSEUDO, **defaults, **parameters}

    @property
    def resources(self) -> dict[str, Any]:
        """Those that are made, with all functions resolved."""
        found = {
            name: each
            for name, each in self.raw["Resources"].items()
            if "Condition" not in each or self._holds(each["Condition"])
        }
        return {name: self._resolved(dict(each)) for name, each in found.items()}

    def properties(self, name: str) -> dict[str, Any]:
        """Return those of one resource."""
        found: dict[str, Any] = self.resources[name]["Properties"]
        return found

    def outputs(self) -> set[str]:
        """Return the names of those that there are."""
        return {
            name
            for name, each in self.raw["Outputs"].items()
            if "Condition" not in each or self._holds(each["Condition"])
        }

    def _holds(self, condition: str) -> bool:
        return bool(self._resolved(self.raw["Conditions"][condition]))

    def _resolved(self, node: Any) -> Any:
        if isinstance(node, list):
            return [each for each in map(self._resolved, node) if each is not _NOTHING]
        if not isinstance(node, Mapping):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref":
                return self._reference(argument)
            if name == "Fn::GetAtt":
                return self._attribute(*(argument.split(".", 1) if isinstance(argument, str) else argument))
            if name.startswith("Fn::"):
                return getattr(self, f"_{name[4:].lower()}")(argument)
        resolved = {key: self._resolved(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NOTHING}

    def _reference(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        if name in self._values:
            return self._values[name]
        resource = self.raw["Resources"][name]
        assert "Condition" not in resource or self._holds(resource["Condition"]), f"{name} is not made"
        if resource["Type"] == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self._queue_name(name)}"
        return name

    def _attribute(self, name: str, attribute: str) -> str:
        if self.raw["Resources"][name]["Type"] == "AWS::SQS::Queue":
            queue = self._queue_name(name)
            return queue if attribute == "QueueName" else f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
        return f"{name}.{attribute}"

    def _queue_name(self, name: str) -> str:
        return str(self._resolved(self.raw["Resources"][name]["Properties"]["QueueName"]))

    def _sub(self, argument: Any) -> str:
        text, own = argument if isinstance(argument, list) else (argument, {})
        own = self._resolved(own)

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name in own:
                return str(own[name])
            if "." in name:
                return self._attribute(*name.split(".", 1))
            return str(self._reference(name))

        return re.sub(r"\$\{([^}!]+)\}", value, text)

    def _if(self, argument: list[Any]) -> Any:
        condition, yes, no = argument
        return self._resolved(yes if self._holds(condition) else no)

    def _equals(self, argument: list[Any]) -> bool:
        one, other = map(self._resolved, argument)
        return bool(str(one) == str(other))

    def _not(self, argument: list[Any]) -> bool:
        return not self._resolved(argument[0])

    def _findinmap(self, argument: list[Any]) -> Any:
        name, key, second = map(self._resolved, argument)
        return self.raw["Mappings"][name][key][second]
