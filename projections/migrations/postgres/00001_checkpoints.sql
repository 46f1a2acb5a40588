-- +goose Up

-- How far each projection and consumer has come. A projection under construction
-- has a second row, NAME/rebuild. position, version and build together are what a
-- writer must still find as it read them.
CREATE TABLE api_projection_checkpoints (
  name       text        NOT NULL PRIMARY KEY,
  version    integer     NOT NULL,
  build      text        NOT NULL,
  position   bigint      NOT NULL CHECK (position >= 0),
  status     text        NOT NULL CHECK (status IN ('running', 'rebuilding', 'failing', 'stopped')),
  error      text        NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- few rows, rewritten all the time: room for updates in place

-- +goose Down
DROP TABLE api_projection_checkpoints;
