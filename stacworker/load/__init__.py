"""Loading: documents are checked, batched per collection, and made durable in a sink."""
