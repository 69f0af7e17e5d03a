"""A module that cannot be imported."""

import sys

sys.stderr.write("looking for the library\n")
raise ImportError("libgdal.so.99 is missing")
