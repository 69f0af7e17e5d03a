"""Dashboards and alerts against a real Prometheus that scrapes real workers: `scripts/prometheus`."""
