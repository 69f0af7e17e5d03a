"""The image, built and run for real: `scripts/image`."""
