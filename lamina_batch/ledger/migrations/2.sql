-- Webhooks and downloads.

ALTER TABLE job ADD COLUMN by_webhook INTEGER NOT NULL DEFAULT 0 CHECK (by_webhook IN (0, 1));

CREATE INDEX event_submission ON event (submission) WHERE submission IS NOT NULL;

CREATE TABLE download (
    job_id   INTEGER NOT NULL REFERENCES job (id),
    position INTEGER NOT NULL,
    file     TEXT,
    sha256   TEXT,
    error    TEXT,
    at       REAL NOT NULL,
    PRIMARY KEY (job_id, position),
    CHECK ((file IS NULL) = (sha256 IS NULL) AND (file IS NULL) <> (error IS NULL))
) STRICT, WITHOUT ROWID;
