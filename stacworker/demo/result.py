"""What the demo came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stacworker.demo.verify import Observed


@dataclass(frozen=True, slots=True)
class Result:
    """What was observed at the end, in how many seconds of work, and all that is not as planned."""

    observed: Observed
    seconds: float
    problems: Sequence[str]

    @property
    def items_per_second(self) -> float:
        """Items loaded, from the first message sent to the last one ended."""
        return self.observed.counts.loaded / self.seconds

    def after_exit(self, code: int) -> Result:
        """Return it with the exit code of a worker that had been kept."""
        problems = [*self.problems, *([f"the worker ended with exit code {code} instead of 0"] if code else [])]
        return replace(self, observed=replace(self.observed, exit_code=code), problems=problems)

    def as_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "ok": not self.problems,
            "problems": list(self.problems),
            "counts": asdict(self.observed.counts),
            "exit_code": self.observed.exit_code,
            "seconds": round(self.seconds, 3),
            "items_per_second": round(self.items_per_second, 1),
            "dead_letters": [{"error_class": one.error_class, "reason": one.reason} for one in self.observed.letters],
            "search": [item["id"] for item in self.observed.catalogue.found],
        }
