"""How foreign values are shown in the reasons of dead letters: short, printable, never recursive."""

from __future__ import annotations

import json

from stacworker.errors import Permanent


def shown(value: object, max_chars: int = 80) -> str:
    """Return a short printable form of a JSON value; of lists and objects only that they are one."""
    if isinstance(value, dict):
        keys = ", ".join(shown(key, 40) for key in list(value)[:8])
        return f"an object with the keys {keys}" if keys else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return repr(value if len(value) <= max_chars else value[:max_chars] + "…")
    return json.dumps(value)  # null, true, false, a number


def bad_envelope(problem: str) -> Permanent:
    """Return the error for an envelope that was recognised and is not as its sender writes them."""
    return Permanent(problem, error_class="bad_envelope")
