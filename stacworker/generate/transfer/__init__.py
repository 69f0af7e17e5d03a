"""Files from elsewhere to this machine and from here to S3; the parent's business, which has the credentials."""
