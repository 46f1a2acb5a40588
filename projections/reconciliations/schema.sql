-- Every reconciliation run, its state whole in its outside form without findings.
CREATE TABLE {runs} (
  run_id             {text} NOT NULL PRIMARY KEY,
  realm              {text} NOT NULL,
  status             {text} NOT NULL,
  started_at         {time} NOT NULL,
  finished_at        {time},
  state              {json} NOT NULL,
  version            {int}  NOT NULL, -- of the run's stream
  position           {int}  NOT NULL, -- of the newest event folded
  completed_position {int}            -- of ReconciliationCompleted
);

CREATE INDEX {run_index}_realm ON {runs} (realm, started_at, run_id);

CREATE INDEX {run_index}_started ON {runs} (started_at, run_id);

-- Every drift in every form that it had: open from one position of the log until
-- another. What a run found are those open where it was completed.
CREATE TABLE {drifts} (
  opened_position {int}  NOT NULL PRIMARY KEY,
  closed_position {int},
  realm           {text} NOT NULL,
  user_id         {text} NOT NULL,
  run_id          {text} NOT NULL,
  situation       {text} NOT NULL,
  opened_at       {time} NOT NULL,
  closed_at       {time},
  finding         {json} NOT NULL
);

CREATE UNIQUE INDEX {drift_index}_open ON {drifts} (realm, user_id) WHERE closed_position IS NULL;

CREATE INDEX {drift_index}_user ON {drifts} (realm, user_id, opened_position);
