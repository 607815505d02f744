-- The ledger, version 4. Instants are epoch seconds UTC. One file per pipeline; see docs/ledger.md.
--
-- 1  jobs, outputs, events, problems
-- 2  job.by_webhook; downloads; a submission's name is looked up when a callback brings it (migrations/2.sql)
-- 3  indexes for a plan: which contents are completed, how long the latest took (migrations/3.sql)
-- 4  what the next plan need not look at (migrations/4.sql)

-- What this ledger belongs to, and what was last learned of the service.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row per key, variant and revision. A revision is one content, or the same content asked for once more.
CREATE TABLE job (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    key            TEXT NOT NULL CHECK (key <> ''),
    variant        TEXT NOT NULL,
    revision       INTEGER NOT NULL CHECK (revision >= 1),
    content        TEXT NOT NULL CHECK (length(content) = 64),
    inputs         TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('planned', 'submitting', 'running', 'completed', 'failed',
                                                  'timed_out', 'rejected', 'held')),
    app_id         TEXT NOT NULL,
    contract       TEXT NOT NULL,
    generation     TEXT,
    execution_id   TEXT,
    submission     TEXT,
    attempts       INTEGER NOT NULL DEFAULT 0,
    submitted_at   REAL,
    completed_at   REAL,
    seconds        REAL,
    failed_outputs INTEGER NOT NULL DEFAULT 0,
    code           TEXT,
    message        TEXT,
    by_webhook     INTEGER NOT NULL DEFAULT 0 CHECK (by_webhook IN (0, 1)),
    UNIQUE (key, variant, revision),
    -- Nothing is sent without a name and an instant; what runs or ran has the id that was paid for.
    CHECK (state = 'planned' OR (submission IS NOT NULL AND submitted_at IS NOT NULL AND attempts >= 1)),
    CHECK (state NOT IN ('running', 'timed_out', 'completed') OR execution_id IS NOT NULL)
) STRICT;

-- With what tells a completed job: a plan reads all of a million contents, and nothing else of them.
CREATE INDEX job_content ON job (content, state, failed_outputs);
-- The latest durations of an app, for forecasts.
CREATE INDEX job_durations ON job (app_id, completed_at, seconds) WHERE state = 'completed' AND seconds IS NOT NULL;
CREATE INDEX job_open ON job (state) WHERE state NOT IN ('completed', 'failed', 'rejected');
-- At most one live attempt per job, whatever the code above does.
CREATE UNIQUE INDEX job_one_live ON job (key, variant, content) WHERE state IN ('submitting', 'running');
CREATE INDEX job_execution ON job (execution_id) WHERE execution_id IS NOT NULL;

CREATE TABLE output (
    job_id    INTEGER NOT NULL REFERENCES job (id),
    position  INTEGER NOT NULL,
    output_id TEXT NOT NULL,
    label     TEXT NOT NULL,
    type      TEXT NOT NULL,
    status    TEXT NOT NULL,
    value     TEXT,
    error     TEXT,
    PRIMARY KEY (job_id, position)
) STRICT, WITHOUT ROWID;

-- The history, in the same transaction as what it tells. Never changed, never deleted.
CREATE TABLE event (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           REAL NOT NULL,
    run_id       TEXT NOT NULL,
    job_id       INTEGER NOT NULL REFERENCES job (id),
    from_state   TEXT,
    to_state     TEXT NOT NULL,
    submission   TEXT,
    execution_id TEXT,
    code         TEXT,
    message      TEXT
) STRICT;

CREATE INDEX event_job ON event (job_id);
CREATE INDEX event_submission ON event (submission) WHERE submission IS NOT NULL;
CREATE TRIGGER event_is_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are kept'); END;
CREATE TRIGGER event_is_final BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are final'); END;

-- What was wrong at the end of the last run, to tell new problems from known ones.
CREATE TABLE problem (
    identity TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What became of the file behind an output: it is here, or why not. `file` is seen from the ledger's folder.
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
