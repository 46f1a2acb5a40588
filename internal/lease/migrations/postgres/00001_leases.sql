-- +goose Up

-- Who may do what only one process should do, and what it last did. epoch rises with
-- every new holder; a holder of an older one can write nothing here.
CREATE TABLE api_leases (
  name       text        NOT NULL PRIMARY KEY,
  owner      text        NOT NULL,
  epoch      bigint      NOT NULL,
  expires_at timestamptz NOT NULL,
  last_run   timestamptz,
  state      json
) WITH (fillfactor = 50); -- few rows, rewritten all the time: room for updates in place

-- +goose Down
DROP TABLE api_leases;
