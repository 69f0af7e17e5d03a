"""The daemon, but one that soon tries again what failed: `python -m tests.integration.impatient run …`.

The daemon waits up to half a minute before it asks whether an outage is over, and seconds before it asks an inventory
again; here a second at most, so that a test sees many tries soon.
"""

from __future__ import annotations

from stacworker.cli import main
from stacworker.consume import circuit
from stacworker.pipelines import triggers

_PAUSE_S = 1.0

if __name__ == "__main__":
    circuit._LAST_PAUSE_S = triggers._FIRST_PAUSE_S = _PAUSE_S
    raise SystemExit(main())
