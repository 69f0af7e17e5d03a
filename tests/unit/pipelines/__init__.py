"""Pipelines without a worker."""
