-- Rows that were completed, and plain, when `event` was the last one: numbers of their cells, packed, for the next plan.
-- `made_with` says of which mapping and app. It may be lost: a plan then looks at every row.
CREATE TABLE settled (
    made_with TEXT NOT NULL,
    event     INTEGER NOT NULL,
    prints    BLOB NOT NULL
) STRICT;
