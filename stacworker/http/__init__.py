"""One HTTP port: health, readiness, metrics."""
