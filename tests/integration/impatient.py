"""The daemon, but one that asks often whether an outage is over: `python -m tests.integration.impatient run …`.

Between its probes the daemon waits up to half a minute; here a second, so that a test sees many of them soon.
"""

from __future__ import annotations

from stacworker.cli import main
from stacworker.consume import circuit

_LAST_PAUSE_S = 1.0

if __name__ == "__main__":
    circuit._LAST_PAUSE_S = _LAST_PAUSE_S
    raise SystemExit(main())
