"""Datasets as folders: what a pipeline.yaml says, and what the daemon makes of it."""
