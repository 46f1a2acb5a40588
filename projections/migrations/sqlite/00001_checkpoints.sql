-- +goose Up

-- How far each projection and consumer has come. A projection under construction
-- has a second row, NAME/rebuild. position, version and build together are what a
-- writer must still find as it read them.
CREATE TABLE api_projection_checkpoints (
  name       TEXT    NOT NULL PRIMARY KEY,
  version    INTEGER NOT NULL,
  build      TEXT    NOT NULL,
  position   INTEGER NOT NULL CHECK (position >= 0),
  status     TEXT    NOT NULL CHECK (status IN ('running', 'rebuilding', 'failing', 'stopped')),
  error      TEXT    NOT NULL DEFAULT '',
  updated_at TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE api_projection_checkpoints;
