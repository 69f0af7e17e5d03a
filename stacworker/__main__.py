"""`python -m stacworker`: the same as the `stacworker` command."""

import sys

from stacworker.cli import main

sys.exit(main())
