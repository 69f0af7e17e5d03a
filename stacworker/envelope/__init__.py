"""What a message's body holds: envelopes opened, S3 objects fetched, documents and requests made."""
