"""From a queue to an outcome: polling, leases, acknowledgement, retries, dead letters, drain."""
