-- A plan reads all contents, which of them are completed, and the latest durations from indexes alone.

DROP INDEX job_content;

CREATE INDEX job_content ON job (content, state, failed_outputs);
-- The latest durations of an app, for forecasts.
CREATE INDEX job_durations ON job (app_id, completed_at, seconds) WHERE state = 'completed' AND seconds IS NOT NULL;
