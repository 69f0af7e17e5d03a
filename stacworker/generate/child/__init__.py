"""A generator's child process: loads one target, then makes items for one request after another.

The parent (`stacworker/generate/process.py`) runs this folder's `__main__.py` by its path, in its own
interpreter or in another environment's (Python 3.11 or newer). So nothing here needs more than the
standard library, and modules import each other relatively; orjson is used where there is one.

A child is two processes: the first (`guard.py`) stays between the parent and the second, the worker,
which loads the target.

Protocol, over one socket whose descriptor is the first argument, the parent's process number being the
second (standard input, output and error stay the target's own business). A frame is its length in four
bytes, big-endian, and that many bytes of JSON::

    parent → child   {"path": […], "target": {…}, "memory_bytes": n, "max_result_bytes": n}
    child → parent   {"ready": {"python": "3.11.7", "about": {…}}}    or {"failed": reason}, and it ends
    parent → child   {"request": {…}}
    child → parent   {"item": {…}}, any number of times, then one of
                     {"done": count, "replace": bool}
                     {"error": {"class": …, "transient": bool, "reason": …}, "replace": bool}

`replace` asks for a fresh child in place of this one. End of file on the socket ends the child.

A target is `{"ref": "module:attribute", "factory": bool, "options": {…}}`. A function is called as
`function(request, **options)`; a factory is called once, as `factory(**options)`, and returns the
function, whose attribute `about`, where it has one, goes to the parent with `ready`. The function
returns an item (a dict, or what has `to_dict()`, such as pystac.Item), an iterable or async iterator of
items, or an awaitable of one of these.
"""
