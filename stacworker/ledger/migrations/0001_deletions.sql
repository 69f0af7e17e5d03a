-- The tombstones of deleted items: an older put that arrives late must not bring a deleted item back.
CREATE TABLE stacworker.deletions (
    collection text NOT NULL,
    id text NOT NULL,
    version_ms bigint NOT NULL,
    sequencer text NOT NULL DEFAULT '',
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, id)
);

COMMENT ON TABLE stacworker.deletions IS 'Items deleted by stacworker, with the version of the deletion.';
COMMENT ON COLUMN stacworker.deletions.version_ms IS 'Milliseconds since the epoch of the event that deleted it.';
COMMENT ON COLUMN stacworker.deletions.sequencer IS 'S3 sequencer of that event, left-padded; empty: none.';

-- Tombstones are pruned by age.
CREATE INDEX deletions_deleted_at ON stacworker.deletions (deleted_at);

GRANT USAGE ON SCHEMA stacworker TO pgstac_ingest;
GRANT SELECT ON stacworker.migrations TO pgstac_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON stacworker.deletions TO pgstac_ingest;
