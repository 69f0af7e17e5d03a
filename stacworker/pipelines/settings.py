"""What a pipeline.yaml may say."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stacworker.settings import CollectionSettings, GeneratorSettings, LimitsSettings, Name, OutputSettings, QueueUrl

_EVERY = re.compile(r"(?P<count>\d+(?:\.\d+)?)\s*(?P<unit>[smhd])")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _seconds(value: object) -> object:
    match = _EVERY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("give a number and its unit, such as 30m, 6h or 1d")
    return float(match["count"]) * _UNIT_S[match["unit"]]


def _check_reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError("give module:function, such as inventory:create_requests")
    return value


Every = Annotated[float, BeforeValidator(_seconds), Field(ge=1)]
Reference = Annotated[str, AfterValidator(_check_reference)]
Asked = str | dict[str, Any]
"""A request: a JSON object, or the text of a message's body, such as a URL."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ScheduleSettings(_Part):
    """Requests that come again and again, the first time at start."""

    every: Every
    """The time from one to the next, such as 6h."""
    requests: tuple[Asked, ...] | None = None
    """What is asked for; default: what the function of `inventory` gives."""


class FeedSettings(_Part):
    """A class of your own that finds out what is to be done."""

    type: Reference
    """module:Class, with an async iterator requests()."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class."""


class TriggerSettings(_Part):
    """What makes the pipeline work. Each is optional; one is needed."""

    queue_url: QueueUrl | None = None
    """A queue that gets notifications or requests: S3 events, SNS, EventBridge, or any other form."""
    any_object: bool = False
    """A JSON object of a form that nobody knows is a request too; else it is a dead letter."""
    once: bool | tuple[Asked, ...] = False
    """At each start: these requests, or with `true` those of `inventory`, or one empty request without one."""
    schedule: ScheduleSettings | None = None
    """Again and again."""
    feed: FeedSettings | None = None
    """Requests from a class of your own."""


class CollectionSource(_Part):
    """The collection, which is created or updated at start."""

    id: Annotated[str, Field(min_length=1)]
    """Its id: all items of the pipeline go there, unless a request names another."""
    file: str | None = None
    """A JSON file in the pipeline's folder; default: collection.json, if it is there."""
    function: Reference | None = None
    """A function that returns it; default: collection:create_collection, if collection.py is there."""

    @model_validator(mode="after")
    def _one_source(self) -> CollectionSource:
        if self.file is not None and self.function is not None:
            raise ValueError("give either file or function, not both")
        return self


class PipelineSettings(OutputSettings):
    """One dataset: what triggers it, what makes its items, where they go."""

    id: Name | None = None
    """Its name in logs, metrics and settings; default: the folder's."""
    description: str = ""
    """For people."""
    enabled: bool = True
    """False: it is not run."""
    triggers: TriggerSettings
    """What makes it work."""
    generator: GeneratorSettings | None = None
    """What makes the items; default: items:create_items, if items.py is there."""
    inventory: Reference | None = None
    """A function that returns or yields all requests there are; default: inventory:create_requests, if it is there."""
    collection: CollectionSource | None = None
    """Where the items go."""
    limits: LimitsSettings = LimitsSettings()
    """As in `consumers`: max_in_flight, visibility_timeout_s, dead_letter_queue_url, …"""
    loading: CollectionSettings | None = None
    """As in `collections`: max_batch_items, max_concurrency, conflict, …"""

    @model_validator(mode="before")
    @classmethod
    def _collection_by_id(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("collection"), str):
            return {**value, "collection": {"id": value["collection"]}}
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> PipelineSettings:
        triggers = self.triggers
        if triggers.queue_url is None and not triggers.once and triggers.schedule is None and triggers.feed is None:
            raise ValueError("triggers: give queue_url, once, schedule or feed")
        if self.loading is not None and self.collection is None:
            raise ValueError("loading: name the collection too")
        self.check_output_keys()
        return self
