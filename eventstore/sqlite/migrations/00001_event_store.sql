-- +goose Up

-- The log. position is the rowid, so reading in the order of positions is reading
-- the table in its own order. Ids are text for the sake of people with a shell;
-- times are RFC 3339 in UTC with six digits, so that text order is time order.
CREATE TABLE api_event_store (
  position       INTEGER PRIMARY KEY,
  event_id       TEXT    NOT NULL,
  aggregate_id   TEXT    NOT NULL,
  version        INTEGER NOT NULL CHECK (version > 0),
  event_type     TEXT    NOT NULL,
  event_data     TEXT    NOT NULL,
  event_metadata TEXT    NOT NULL,
  correlation_id TEXT,
  causation_id   TEXT,
  stream         TEXT    NOT NULL,
  occurred_at    TEXT    NOT NULL,
  created_at     TEXT    NOT NULL
) STRICT;

-- Every index ends with the rowid, which is the position.
CREATE UNIQUE INDEX api_event_store_event_id ON api_event_store (event_id);
CREATE UNIQUE INDEX api_event_store_version ON api_event_store (aggregate_id, version);
CREATE INDEX api_event_store_type ON api_event_store (event_type);
CREATE INDEX api_event_store_category ON api_event_store (substr(stream, 1, instr(stream || '/', '/') - 1));
CREATE INDEX api_event_store_correlation ON api_event_store (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX api_event_store_causation ON api_event_store (causation_id) WHERE causation_id IS NOT NULL;
CREATE INDEX api_event_store_created_at ON api_event_store (created_at);

-- The gate: one row a stream, written by appends only.
CREATE TABLE api_streams (
  aggregate_id   TEXT    PRIMARY KEY,
  stream         TEXT    NOT NULL,
  version        INTEGER NOT NULL CHECK (version > 0),
  first_position INTEGER NOT NULL,
  last_position  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- States of aggregates at a version; they can be dropped at any time. shape names
-- the code that wrote the state.
CREATE TABLE api_snapshots (
  aggregate_id TEXT    NOT NULL,
  version      INTEGER NOT NULL,
  shape        TEXT    NOT NULL,
  state        TEXT    NOT NULL,
  created_at   TEXT    NOT NULL,
  PRIMARY KEY (aggregate_id, shape, version)
) STRICT, WITHOUT ROWID;

-- What was on the wire, with a retention of its own: these rows may be deleted.
CREATE TABLE api_raw_bodies (
  event_id     TEXT PRIMARY KEY,
  content_type TEXT NOT NULL,
  body         BLOB NOT NULL,
  created_at   TEXT NOT NULL,
  digest       TEXT NOT NULL
) STRICT;
CREATE INDEX api_raw_bodies_created_at ON api_raw_bodies (created_at);

-- +goose StatementBegin
CREATE TRIGGER api_event_store_no_update BEFORE UPDATE ON api_event_store BEGIN
  SELECT RAISE(ABORT, 'events are never updated');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER api_event_store_no_delete BEFORE DELETE ON api_event_store BEGIN
  SELECT RAISE(ABORT, 'events are never deleted');
END;
-- +goose StatementEnd
-- INSERT OR REPLACE deletes the row in its way without firing a delete trigger.
-- +goose StatementBegin
CREATE TRIGGER api_event_store_no_replace BEFORE INSERT ON api_event_store
WHEN EXISTS (SELECT 1 FROM api_event_store WHERE position = NEW.position)
  OR EXISTS (SELECT 1 FROM api_event_store WHERE event_id = NEW.event_id)
  OR EXISTS (SELECT 1 FROM api_event_store WHERE aggregate_id = NEW.aggregate_id AND version = NEW.version)
BEGIN
  SELECT RAISE(ABORT, 'events are never replaced');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER api_streams_no_delete BEFORE DELETE ON api_streams BEGIN
  SELECT RAISE(ABORT, 'streams are never deleted');
END;
-- +goose StatementEnd
