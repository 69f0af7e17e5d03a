"""Items and collections into pgstac 0.9 and 0.10, fast and without fighting over its locks.

`catalogue` is the way in; `transaction` is the one transaction of a load; `partitions` knows the leaves and
`ddl` makes them; `rows` turns items into rows, with `dehydrate`; `versions` decides which of two is newer.
All SQL is in `sql`.
"""

from stacworker.load.pgstac.catalogue import Catalogue
from stacworker.load.pgstac.results import Busy, Loaded, MissingCollection
from stacworker.postgres_errors import Refused

__all__ = ["Busy", "Catalogue", "Loaded", "MissingCollection", "Refused"]
