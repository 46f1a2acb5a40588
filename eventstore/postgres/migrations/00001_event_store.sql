-- +goose Up

-- Everything is created in the schema that the migrating role's search path names
-- first, and api_append is bound to it. pg_temp last: a temporary table must never
-- stand in for one of ours.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- The log. Positions are given by api_append under a lock, not by a sequence: they
-- have no gaps, and their order is the order of commits. Payloads are json, not
-- jsonb: they are hashed and shown as the bytes that were appended.
CREATE TABLE api_event_store (
  position       bigint      NOT NULL CHECK (position > 0),
  event_id       uuid        NOT NULL,
  aggregate_id   uuid        NOT NULL,
  version        int         NOT NULL CHECK (version > 0),
  event_type     text        NOT NULL,
  event_data     json        NOT NULL,
  event_metadata json        NOT NULL,
  correlation_id uuid,
  causation_id   uuid,
  stream         text        NOT NULL,
  occurred_at    timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  CONSTRAINT api_event_store_position PRIMARY KEY (position),
  CONSTRAINT api_event_store_event_id UNIQUE (event_id),
  CONSTRAINT api_event_store_version UNIQUE (aggregate_id, version)
);

-- Each ends with the position, so that a page in the order of positions is a walk
-- along one index.
CREATE INDEX api_event_store_type ON api_event_store (event_type, position);
CREATE INDEX api_event_store_category ON api_event_store (split_part(stream, '/', 1), position);
CREATE INDEX api_event_store_correlation ON api_event_store (correlation_id, position) WHERE correlation_id IS NOT NULL;
CREATE INDEX api_event_store_causation ON api_event_store (causation_id, position) WHERE causation_id IS NOT NULL;
CREATE INDEX api_event_store_created_at ON api_event_store (created_at, position);

-- The gate: one row a stream, written by api_append only.
CREATE TABLE api_streams (
  aggregate_id   uuid   PRIMARY KEY,
  stream         text   NOT NULL,
  version        int    NOT NULL CHECK (version > 0),
  first_position bigint NOT NULL,
  last_position  bigint NOT NULL
);

-- States of aggregates at a version; they can be dropped at any time. shape names
-- the code that wrote the state.
CREATE TABLE api_snapshots (
  aggregate_id uuid        NOT NULL,
  version      int         NOT NULL,
  shape        text        NOT NULL,
  state        json        NOT NULL,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (aggregate_id, shape, version)
);

-- What was on the wire, with a retention of its own: these rows may be deleted.
CREATE TABLE api_raw_bodies (
  event_id     uuid        PRIMARY KEY,
  content_type text        NOT NULL,
  body         bytea       NOT NULL,
  created_at   timestamptz NOT NULL,
  digest       text        NOT NULL
);
CREATE INDEX api_raw_bodies_created_at ON api_raw_bodies (created_at);

-- +goose StatementBegin
CREATE FUNCTION api_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: what has happened is never changed', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER api_event_store_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON api_event_store
  FOR EACH STATEMENT EXECUTE FUNCTION api_refuse();
CREATE TRIGGER api_streams_immutable BEFORE DELETE OR TRUNCATE ON api_streams
  FOR EACH STATEMENT EXECUTE FUNCTION api_refuse();
-- ALWAYS: also in a session that plays the part of a replica.
ALTER TABLE api_event_store ENABLE ALWAYS TRIGGER api_event_store_immutable;
ALTER TABLE api_streams ENABLE ALWAYS TRIGGER api_streams_immutable;

-- api_append is the only way into the log: one call, one verdict, one round trip.
-- It is one call, and not a lock followed by statements, because a client that is
-- paused between two statements would hold up all writers.
--
-- Streams are numbered from 1, events refer to them by that number. event_offsets
-- are the numbers of earlier events of the same stream in this call; event_expected
-- is the version a stream must have before the event, NULL where any will do.
--
-- Verdicts: 'recorded'; 'known' (at least one event id is recorded already, nothing
-- was written); 'conflict' (a stream is not at the version expected, nothing was
-- written); 'other_stream' (the aggregate id of stream number at_stream belongs to
-- a stream with the name found, nothing was written). versions are the streams'
-- versions before the call, last_position the head of the log before it.
--
-- Planner: with few or stale statistics a sequential scan of a small table is
-- chosen, and the plan kept while the table grows; hence enable_seqscan, and no
-- join against a table that grows.
-- +goose StatementBegin
CREATE FUNCTION api_append(
  recorded_at timestamptz,
  stream_ids uuid[], stream_names text[], stream_counts int[], stream_firsts int[], stream_lasts int[],
  event_ids uuid[], event_streams int[], event_offsets int[], event_expected int[], event_types text[],
  event_datas text[], event_metadatas text[], correlation_ids uuid[], causation_ids uuid[], occurred_ats timestamptz[],
  body_event_ids uuid[], body_content_types text[], bodies bytea[], body_digests text[],
  OUT verdict text, OUT last_position bigint, OUT versions int[], OUT at_stream int, OUT found text
) LANGUAGE plpgsql
  SECURITY DEFINER
  SET search_path FROM CURRENT
  SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off
  SET lock_timeout = '10s'
AS $$
#variable_conflict use_variable
DECLARE
  stream_version int;
  stream_name text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was committed while waiting for the lock.
    RAISE EXCEPTION 'api_append needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;

  -- The order lock, held until commit: ASCII "keytrail".
  PERFORM pg_advisory_xact_lock(7738725075748219244);

  IF (SELECT count(*) FROM api_event_store e WHERE e.event_id = ANY (event_ids)) > 0 THEN
    verdict := 'known';
    RETURN;
  END IF;

  FOR i IN 1 .. cardinality(stream_ids) LOOP
    SELECT s.version, s.stream INTO stream_version, stream_name FROM api_streams s WHERE s.aggregate_id = stream_ids[i];
    versions[i] := coalesce(stream_version, 0);
    IF stream_name <> stream_names[i] THEN
      verdict := 'other_stream';
      at_stream := i;
      found := stream_name;
      RETURN;
    END IF;
  END LOOP;
  FOR i IN 1 .. cardinality(event_ids) LOOP
    IF event_expected[i] <> versions[event_streams[i]] + event_offsets[i] THEN
      verdict := 'conflict';
      RETURN;
    END IF;
  END LOOP;

  SELECT e.position INTO last_position FROM api_event_store e ORDER BY e.position DESC LIMIT 1;
  last_position := coalesce(last_position, 0);

  INSERT INTO api_event_store (position, event_id, aggregate_id, version, event_type, event_data, event_metadata,
    correlation_id, causation_id, stream, occurred_at, created_at)
  SELECT last_position + e.n, e.id, stream_ids[e.stream], versions[e.stream] + e.earlier + 1, e.type, e.data::json, e.metadata::json,
    e.correlation, e.causation, stream_names[e.stream], e.occurred, recorded_at
  FROM unnest(event_ids, event_streams, event_offsets, event_types, event_datas, event_metadatas, correlation_ids, causation_ids, occurred_ats)
    WITH ORDINALITY AS e (id, stream, earlier, type, data, metadata, correlation, causation, occurred, n);

  INSERT INTO api_streams AS s (aggregate_id, stream, version, first_position, last_position)
  SELECT g.id, g.name, versions[g.n] + g.events, last_position + g.first, last_position + g.last
  FROM unnest(stream_ids, stream_names, stream_counts, stream_firsts, stream_lasts) WITH ORDINALITY AS g (id, name, events, first, last, n)
  ON CONFLICT ON CONSTRAINT api_streams_pkey DO UPDATE SET version = excluded.version, last_position = excluded.last_position;

  IF cardinality(body_event_ids) > 0 THEN
    INSERT INTO api_raw_bodies (event_id, content_type, body, created_at, digest)
    SELECT b.id, b.content_type, b.body, recorded_at, b.digest
    FROM unnest(body_event_ids, body_content_types, bodies, body_digests) AS b (id, content_type, body, digest);
  END IF;

  verdict := 'recorded';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
  -- PostgreSQL lets everybody execute a new function.
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', 'api_append'::regproc::oid::regprocedure);
END
$$;
-- +goose StatementEnd
