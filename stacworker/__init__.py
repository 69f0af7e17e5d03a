"""stacworker: the daemon that keeps STAC catalogues current."""

__version__ = "0.1.0"
