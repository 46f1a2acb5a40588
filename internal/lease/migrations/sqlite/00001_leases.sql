-- +goose Up

-- Who may do what only one process should do, and what it last did. epoch rises with
-- every new holder; a holder of an older one can write nothing here.
CREATE TABLE api_leases (
  name       TEXT    NOT NULL PRIMARY KEY,
  owner      TEXT    NOT NULL,
  epoch      INTEGER NOT NULL,
  expires_at TEXT    NOT NULL,
  last_run   TEXT,
  state      TEXT
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE api_leases;
