"""stacworker's own tables in the Postgres schema `stacworker`."""
