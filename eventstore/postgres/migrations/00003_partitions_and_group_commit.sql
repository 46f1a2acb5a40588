-- +goose Up

-- Everything is created in the schema that the migrating role's search path names
-- first, and the functions are bound to it. pg_temp last: a temporary table must
-- never stand in for one of ours.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- The table as it was becomes the first partition, whatever it holds. Its indexes
-- give up their names to those of the whole log.
ALTER TABLE api_event_store RENAME TO api_event_store_p000000000001;
ALTER TABLE api_event_store_p000000000001 RENAME CONSTRAINT api_event_store_position TO api_event_store_p000000000001_position;
ALTER TABLE api_event_store_p000000000001 RENAME CONSTRAINT api_event_store_version TO api_event_store_p000000000001_version;
ALTER INDEX api_event_store_type RENAME TO api_event_store_p000000000001_type;
ALTER INDEX api_event_store_category RENAME TO api_event_store_p000000000001_category;
ALTER INDEX api_event_store_correlation RENAME TO api_event_store_p000000000001_correlation;
ALTER INDEX api_event_store_causation RENAME TO api_event_store_p000000000001_causation;
ALTER INDEX api_event_store_created_at RENAME TO api_event_store_p000000000001_created_at;

-- The log, partitioned by position, so that the indexes that are written to are
-- those of the newest partition only, and old partitions can be detached and kept
-- elsewhere. Positions are given by api_append under a lock, not by a sequence: they
-- have no gaps, and their order is the order of commits. Payloads are json, not
-- jsonb: they are hashed and shown as the bytes that were appended.
CREATE TABLE api_event_store (
  position       bigint      NOT NULL CONSTRAINT api_event_store_position_check CHECK (position > 0),
  event_id       uuid        NOT NULL,
  aggregate_id   uuid        NOT NULL,
  version        int         NOT NULL CONSTRAINT api_event_store_version_check CHECK (version > 0),
  event_type     text        NOT NULL,
  event_data     json        NOT NULL,
  event_metadata json        NOT NULL,
  correlation_id uuid,
  causation_id   uuid,
  stream         text        NOT NULL,
  occurred_at    timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  CONSTRAINT api_event_store_position PRIMARY KEY (position)
) PARTITION BY RANGE (position);

-- Each ends with the position, so that a page in the order of positions is a walk
-- along one index. A unique index of the whole log would have to contain the
-- position: that a version is there once is promised by the gate, and by an index on
-- (aggregate_id, version) that each partition has of its own.
CREATE INDEX api_event_store_type ON api_event_store (event_type, position);
CREATE INDEX api_event_store_category ON api_event_store (split_part(stream, '/', 1), position);
CREATE INDEX api_event_store_correlation ON api_event_store (correlation_id, position) WHERE correlation_id IS NOT NULL;
CREATE INDEX api_event_store_causation ON api_event_store (causation_id, position) WHERE causation_id IS NOT NULL;
CREATE INDEX api_event_store_created_at ON api_event_store (created_at, position);

-- Which event id is at which position, over all partitions: what makes an append
-- that is repeated known, even after its partition has been detached.
CREATE TABLE api_event_ids (
  event_id uuid   NOT NULL,
  position bigint NOT NULL,
  CONSTRAINT api_event_ids_event_id PRIMARY KEY (event_id)
);
INSERT INTO api_event_ids (event_id, position) SELECT event_id, position FROM api_event_store_p000000000001 ORDER BY event_id;
ALTER TABLE api_event_store_p000000000001 DROP CONSTRAINT api_event_store_event_id;

-- The partitions that have been made. One that was detached stays in the list.
CREATE TABLE api_partitions (
  first_position bigint NOT NULL PRIMARY KEY,
  end_position   bigint NOT NULL, -- the first position that is not in it
  name           text   NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT now(),
  CHECK (end_position > first_position)
);

-- +goose StatementBegin
CREATE FUNCTION api_partition_size() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 2000000::bigint $$;
-- +goose StatementEnd

-- The first partition ends at the first boundary after what it holds.
-- +goose StatementBegin
DO $$
DECLARE
  size bigint := api_partition_size();
  head bigint := coalesce((SELECT max(position) FROM api_event_store_p000000000001), 0);
  upper bigint := (head / size + 1) * size + 1;
BEGIN
  -- With the check, attaching does not read the table a second time.
  EXECUTE format('ALTER TABLE api_event_store_p000000000001 ADD CONSTRAINT api_event_store_p000000000001_range CHECK (position >= 1 AND position < %s)', upper);
  EXECUTE format('ALTER TABLE api_event_store ATTACH PARTITION api_event_store_p000000000001 FOR VALUES FROM (1) TO (%s)', upper);
  ALTER TABLE api_event_store_p000000000001 DROP CONSTRAINT api_event_store_p000000000001_range;
  INSERT INTO api_partitions (first_position, end_position, name) VALUES (1, upper, 'api_event_store_p000000000001');
END
$$;
-- +goose StatementEnd

CREATE TRIGGER api_event_store_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON api_event_store
  FOR EACH STATEMENT EXECUTE FUNCTION api_refuse();
CREATE TRIGGER api_event_ids_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON api_event_ids
  FOR EACH STATEMENT EXECUTE FUNCTION api_refuse();
ALTER TABLE api_event_store ENABLE ALWAYS TRIGGER api_event_store_immutable;
ALTER TABLE api_event_ids ENABLE ALWAYS TRIGGER api_event_ids_immutable;

-- A stream's row is updated with every append to it: in place, where the page has
-- room for it.
ALTER TABLE api_streams SET (fillfactor = 80);

-- api_close_table takes rights on a table of the log from everybody but its owner:
-- default privileges must not let anybody write past api_append. kept is what may be
-- kept.
-- +goose StatementBegin
CREATE FUNCTION api_close_table(closed regclass, kept text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT a.privilege_type AS privilege, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
    FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = closed AND a.grantee <> c.relowner AND a.privilege_type <> kept
  LOOP
    EXECUTE format('REVOKE %s ON %s FROM %s CASCADE', r.privilege, closed, r.grantee);
  END LOOP;
END
$$;
-- +goose StatementEnd

-- api_prepare_partitions makes sure that positions up to up_to, and a whole partition
-- beyond, have their place, and returns the position up to which that holds. Any
-- number of processes may call it at once; it neither waits for appends nor holds
-- them up.
-- +goose StatementBegin
CREATE FUNCTION api_prepare_partitions(up_to bigint) RETURNS bigint LANGUAGE plpgsql
  SECURITY DEFINER
  SET search_path FROM CURRENT
  SET lock_timeout = '10s'
AS $$
DECLARE
  size bigint := api_partition_size();
  reached bigint;
  part text;
BEGIN
  SELECT max(end_position) INTO reached FROM api_partitions;
  IF reached > up_to + size THEN
    RETURN reached - size;
  END IF;
  -- ASCII "keyp", and the log: each schema has its own.
  PERFORM pg_advisory_xact_lock(1801812336, 'api_event_store'::regclass::oid::int4);
  -- Another process may have made them meanwhile.
  SELECT max(end_position) INTO reached FROM api_partitions;
  WHILE reached <= up_to + size LOOP
    part := 'api_event_store_p' || lpad(reached::text, 12, '0');
    -- Made apart and attached, which locks out nobody; CREATE TABLE … PARTITION OF
    -- would wait for every reader and writer of the log.
    EXECUTE format('CREATE TABLE %I (LIKE api_event_store INCLUDING ALL)', part);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (aggregate_id, version)', part || '_version', part);
    EXECUTE format('ALTER TABLE api_event_store ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, reached, reached + size);
    -- The log's own trigger is not asked by a statement on a partition.
    EXECUTE format('CREATE TRIGGER api_event_store_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
      FOR EACH STATEMENT EXECUTE FUNCTION api_refuse()', part);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER api_event_store_immutable', part);
    -- Nobody needs a right on a partition: the log's are asked.
    PERFORM api_close_table(part::regclass, '');
    INSERT INTO api_partitions (first_position, end_position, name) VALUES (reached, reached + size, part);
    reached := reached + size;
  END LOOP;
  RETURN reached - size;
END
$$;
-- +goose StatementEnd

-- api_append is the only way into the log: one call, a verdict for each of the
-- requests in it, one round trip. It is one call, and not a lock followed by
-- statements, because a client that is paused between two statements would hold up
-- all writers.
--
-- Requests, streams and events are numbered from 1. A request's events stand together
-- and in the requests' order: request_ends is the number of each one's last event.
-- stream_counts, stream_firsts and stream_lasts are the number of events of a stream,
-- the first and the last of them; event_offsets is the number of earlier events of the
-- same stream; event_expected is the version a stream must have before the event, -1
-- where any will do. head_hint is a position that the log has certainly reached.
--
-- An event id that is recorded already is found where a version is not as expected,
-- which it is not where an append is repeated, or by the unique index, which fails the
-- call. It is then made again with careful set, and looks for the ids first.
--
-- verdicts has a number for each request: 0 recorded; 1 known (an event id of it is
-- recorded already); 2 other name (an aggregate id of it belongs to a stream of
-- another name); 3 conflict (a stream is not at the version expected). It is NULL
-- where all are recorded. Of a request with another verdict than 0 nothing is
-- written, and it does not stand in the way of those after it. versions and names
-- are those of the streams before the call (0 and NULL: it does not exist),
-- last_position is the head of the log before it.
--
-- Planner: with few or stale statistics a sequential scan of a small table is
-- chosen, and the plan kept while the table grows; hence the settings, and no join
-- against a table that grows but by its key.
ALTER FUNCTION api_append RENAME TO api_append_of_one;
-- +goose StatementBegin
CREATE FUNCTION api_append(
  recorded_at timestamptz, head_hint bigint, careful boolean, request_ends int[],
  stream_ids uuid[], stream_names text[], stream_counts int[], stream_firsts int[], stream_lasts int[],
  event_ids uuid[], event_streams int[], event_offsets int[], event_expected int[], event_types text[],
  event_datas text[], event_metadatas text[], correlation_ids uuid[], causation_ids uuid[], occurred_ats timestamptz[],
  body_event_ids uuid[], body_content_types text[], bodies bytea[], body_digests text[],
  OUT verdicts int[], OUT last_position bigint, OUT versions int[], OUT names text[]
) LANGUAGE plpgsql
  SECURITY DEFINER
  SET search_path FROM CURRENT
  SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off
  SET enable_hashjoin = off
  SET enable_mergejoin = off
  SET lock_timeout = '10s'
AS $$
#variable_conflict use_variable
DECLARE
  events int := cardinality(event_ids);
  known uuid[];
  plain boolean := true;
  places bigint[];
  now_at int[];
  trial int[];
  request_first int := 1;
  place bigint := 0;
  s int;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- An older snapshot would not see what was committed while waiting for the lock.
    RAISE EXCEPTION 'api_append needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;

  -- The order lock, held until commit: ASCII "keyt", and the log, so that stores in
  -- several schemas of one database do not wait for each other.
  PERFORM pg_advisory_xact_lock(1801812340, 'api_event_store'::regclass::oid::int4);

  -- A version is negative while its stream has another name. One row is read without
  -- ado: it is what most calls are about.
  IF cardinality(stream_ids) = 1 THEN
    SELECT CASE WHEN g.stream = stream_names[1] THEN g.version ELSE -g.version END INTO s FROM api_streams g WHERE g.aggregate_id = stream_ids[1];
    versions := ARRAY[coalesce(s, 0)];
  ELSE
    versions := ARRAY(SELECT coalesce((SELECT CASE WHEN g.stream = n.name THEN g.version ELSE -g.version END
      FROM api_streams g WHERE g.aggregate_id = n.id), 0) FROM unnest(stream_ids, stream_names) AS n (id, name));
  END IF;

  FOR i IN 1 .. events LOOP
    s := versions[event_streams[i]];
    IF s < 0 OR event_expected[i] >= 0 AND event_expected[i] <> s + event_offsets[i] THEN
      plain := false;
      EXIT;
    END IF;
  END LOOP;
  IF careful OR NOT plain THEN
    SELECT array_agg(i.event_id) INTO known FROM unnest(event_ids) AS e (id) JOIN api_event_ids i ON i.event_id = e.id;
    plain := plain AND known IS NULL;
  END IF;

  SELECT e.position INTO last_position FROM api_event_store e WHERE e.position >= head_hint ORDER BY e.position DESC LIMIT 1;
  IF last_position IS NULL THEN
    -- Nothing has been recorded, or all of it has been detached, which the gate knows.
    SELECT coalesce(max(g.last_position), 0) INTO last_position FROM api_streams g;
    IF last_position < head_hint THEN
      RAISE EXCEPTION 'the log ends at position %, before position % that this program has seen: the database has lost events', last_position, head_hint
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'restart the program after a fail-over or a restore that is meant to be so';
    END IF;
  END IF;

  IF NOT plain THEN
    -- Not all can be recorded: judge one after the other, and lay out what is left.
    names := ARRAY(SELECT (SELECT g.stream FROM api_streams g WHERE g.aggregate_id = n.id) FROM unnest(stream_ids) AS n (id));
    FOR i IN 1 .. cardinality(versions) LOOP
      versions[i] := abs(versions[i]);
    END LOOP;
    now_at := versions;
    places := array_fill(0::bigint, ARRAY[events]);
    stream_counts := array_fill(0, ARRAY[cardinality(stream_ids)]);
    stream_firsts := stream_counts;
    stream_lasts := stream_counts;
    verdicts := array_fill(0, ARRAY[cardinality(request_ends)]);
    FOR r IN 1 .. cardinality(request_ends) LOOP
      trial := now_at;
      FOR i IN request_first .. request_ends[r] LOOP
        IF event_ids[i] = ANY (known) THEN
          verdicts[r] := 1;
          EXIT;
        END IF;
        s := event_streams[i];
        IF verdicts[r] = 0 OR verdicts[r] = 3 THEN
          IF names[s] <> stream_names[s] THEN
            verdicts[r] := 2;
          ELSIF event_expected[i] >= 0 AND event_expected[i] <> trial[s] THEN
            verdicts[r] := 3;
          END IF;
        END IF;
        trial[s] := trial[s] + 1;
      END LOOP;
      IF verdicts[r] = 0 THEN
        FOR i IN request_first .. request_ends[r] LOOP
          s := event_streams[i];
          place := place + 1;
          places[i] := place;
          event_offsets[i] := stream_counts[s];
          stream_counts[s] := stream_counts[s] + 1;
          stream_lasts[s] := place;
          IF stream_firsts[s] = 0 THEN
            stream_firsts[s] := place;
          END IF;
        END LOOP;
        now_at := trial;
      END IF;
      request_first := request_ends[r] + 1;
    END LOOP;
    IF place = 0 THEN
      RETURN;
    END IF;
  END IF;

  IF plain AND events = 1 THEN
    INSERT INTO api_event_ids (event_id, position) VALUES (event_ids[1], last_position + 1);
    INSERT INTO api_event_store (position, event_id, aggregate_id, version, event_type, event_data, event_metadata,
      correlation_id, causation_id, stream, occurred_at, created_at)
    VALUES (last_position + 1, event_ids[1], stream_ids[1], versions[1] + 1, event_types[1], event_datas[1]::json, event_metadatas[1]::json,
      correlation_ids[1], causation_ids[1], stream_names[1], occurred_ats[1], recorded_at);
    INSERT INTO api_streams (aggregate_id, stream, version, first_position, last_position)
    VALUES (stream_ids[1], stream_names[1], versions[1] + 1, last_position + 1, last_position + 1)
    ON CONFLICT ON CONSTRAINT api_streams_pkey DO UPDATE SET version = excluded.version, last_position = excluded.last_position;
  ELSIF plain THEN
    INSERT INTO api_event_ids (event_id, position)
    SELECT e.id, last_position + e.n FROM unnest(event_ids) WITH ORDINALITY AS e (id, n);
    INSERT INTO api_event_store (position, event_id, aggregate_id, version, event_type, event_data, event_metadata,
      correlation_id, causation_id, stream, occurred_at, created_at)
    SELECT last_position + e.n, e.id, stream_ids[e.stream], versions[e.stream] + e.earlier + 1, e.type, e.data::json, e.metadata::json,
      e.correlation, e.causation, stream_names[e.stream], e.occurred, recorded_at
    FROM unnest(event_ids, event_streams, event_offsets, event_types, event_datas, event_metadatas, correlation_ids, causation_ids, occurred_ats)
      WITH ORDINALITY AS e (id, stream, earlier, type, data, metadata, correlation, causation, occurred, n);
  ELSE
    INSERT INTO api_event_ids (event_id, position)
    SELECT e.id, last_position + e.place FROM unnest(event_ids, places) AS e (id, place) WHERE e.place > 0;
    INSERT INTO api_event_store (position, event_id, aggregate_id, version, event_type, event_data, event_metadata,
      correlation_id, causation_id, stream, occurred_at, created_at)
    SELECT last_position + e.place, e.id, stream_ids[e.stream], versions[e.stream] + e.earlier + 1, e.type, e.data::json, e.metadata::json,
      e.correlation, e.causation, stream_names[e.stream], e.occurred, recorded_at
    FROM unnest(event_ids, event_streams, event_offsets, event_types, event_datas, event_metadatas, correlation_ids, causation_ids, occurred_ats, places)
      AS e (id, stream, earlier, type, data, metadata, correlation, causation, occurred, place)
    WHERE e.place > 0;
  END IF;

  IF events > 1 OR NOT plain THEN
    INSERT INTO api_streams AS s (aggregate_id, stream, version, first_position, last_position)
    SELECT g.id, g.name, versions[g.n] + g.events, last_position + g.first, last_position + g.last
    FROM unnest(stream_ids, stream_names, stream_counts, stream_firsts, stream_lasts) WITH ORDINALITY AS g (id, name, events, first, last, n)
    WHERE g.events > 0
    ON CONFLICT ON CONSTRAINT api_streams_pkey DO UPDATE SET version = excluded.version, last_position = excluded.last_position;
  END IF;

  IF cardinality(body_event_ids) > 0 THEN
    INSERT INTO api_raw_bodies (event_id, content_type, body, created_at, digest)
    SELECT b.id, b.content_type, b.body, recorded_at, b.digest
    FROM unnest(body_event_ids, body_content_types, bodies, body_digests) AS b (id, content_type, body, digest)
    WHERE plain OR (SELECT places[array_position(event_ids, b.id)]) > 0;
  END IF;
END
$$;
-- +goose StatementEnd

-- Whoever could read the log and append to it still can, and nobody can do more.
-- +goose StatementBegin
DO $$
DECLARE
  new_append regprocedure := 'api_append'::regproc::oid::regprocedure;
  old_append regprocedure := 'api_append_of_one'::regproc::oid::regprocedure;
  r record;
BEGIN
  -- PostgreSQL lets everybody execute a new function.
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', new_append);
  REVOKE ALL ON FUNCTION api_prepare_partitions(bigint) FROM PUBLIC;
  REVOKE ALL ON FUNCTION api_close_table(regclass, text) FROM PUBLIC;
  FOR r IN SELECT quote_ident(pg_get_userbyid(a.grantee)) AS grantee
    FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = old_append AND a.grantee <> p.proowner AND a.grantee <> 0
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s, %s, api_prepare_partitions(bigint) TO %s',
      new_append, 'api_save_snapshot'::regproc::oid::regprocedure, r.grantee);
  END LOOP;
  EXECUTE format('DROP FUNCTION %s', old_append);

  FOR r IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.oid = 'api_event_store_p000000000001'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
  LOOP
    EXECUTE format('GRANT SELECT ON api_event_store, api_event_ids, api_partitions TO %s', r.grantee);
  END LOOP;
  PERFORM api_close_table('api_event_store', 'SELECT'), api_close_table('api_event_ids', 'SELECT'),
    api_close_table('api_partitions', 'SELECT'), api_close_table('api_event_store_p000000000001', '');
END
$$;
-- +goose StatementEnd

SELECT api_prepare_partitions((SELECT max(end_position) - 1 FROM api_partitions));
