"""Public help for tests, benchmarks and the demo; nothing of the daemon imports it."""
