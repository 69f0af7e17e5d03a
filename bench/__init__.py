"""Benchmarks: each compares stacworker with what bounds it, as ratios within one run."""
