"""Which files of this machine a request may name: those in folders that settings allow, and no other."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_REMOTE = r"(?:/vsi(?:zip|tar|gzip|7z|rar)(?:/\{?)?)?/vsi(?:curl|s3|gs|az|adls|oss|swift)(?:_streaming)?[/?]"
_LOCAL = re.compile(
    rf"(?:^|::|[\"']|:(?!//))\s*(?!{_REMOTE})/"  # also NETCDF:/x, HDF5:"/x", zip://a::/x
    r"|(?:^|[:/\"'])\s*(?:file|local):"
    r"|^\s*[~<]"  # GDAL takes XML for a file
    r"|(?:^|[/\\])\.\.[/\\]|^\.\.$",
    re.IGNORECASE,
)


def is_allowed(text: str, folders: Sequence[str]) -> bool:
    """Return whether a request may have this argument: it names no file of this machine, or one in `folders`.

    A plain relative name is one in the child's own folder. What is fetched from elsewhere and names further
    files (a VRT) is not looked into.
    """
    if not _LOCAL.search(text):
        return True
    if not text.startswith(("/", "file:///")):
        return False
    path = os.path.realpath(text.removeprefix("file://"))
    return any(os.path.commonpath([path, folder]) == folder for folder in map(os.path.realpath, folders))
