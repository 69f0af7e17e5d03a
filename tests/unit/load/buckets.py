"""An S3 client that keeps what it is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Stored:
    """Takes objects, or raises what `errors` says for a key's beginning; `gate` holds writes back."""

    objects: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    writes: int = 0
    running: int = 0
    most_at_once: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803 - boto's names
        assert Bucket == "b"
        self.writes += 1
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            for beginning, error in self.errors.items():
                if Key.startswith(beginning):
                    raise error
            self.objects[Key] = Body
            self.types[Key] = ContentType
        finally:
            self.running -= 1
