"""`stacworker demo`: the whole job on one machine, with nothing configured."""
