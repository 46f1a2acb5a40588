-- +goose Up

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- digest tells a damaged snapshot. One without is ignored.
ALTER TABLE api_snapshots ADD COLUMN digest text NOT NULL DEFAULT '';

-- api_save_snapshot keeps a snapshot and removes those that it makes useless, so that
-- the program's role needs no right on the table but to read it. It returns the
-- stream's version, 0 where the stream is not known by that name; nothing is written
-- where that is below the snapshot's.
--
-- It takes no lock that an append waits for.
-- +goose StatementBegin
CREATE FUNCTION api_save_snapshot(
  stream_id uuid, stream_name text, snapshot_version int, snapshot_shape text, snapshot_state json,
  snapshot_digest text, taken_at timestamptz, kept int
) RETURNS int LANGUAGE plpgsql
  SECURITY DEFINER
  SET search_path FROM CURRENT
  SET lock_timeout = '10s'
AS $$
DECLARE
  stream_version int;
BEGIN
  SELECT s.version INTO stream_version FROM api_streams s WHERE s.aggregate_id = stream_id AND s.stream = stream_name;
  stream_version := coalesce(stream_version, 0);
  IF stream_version < snapshot_version THEN
    RETURN stream_version;
  END IF;

  INSERT INTO api_snapshots AS n (aggregate_id, version, shape, state, created_at, digest)
  VALUES (stream_id, snapshot_version, snapshot_shape, snapshot_state, taken_at, snapshot_digest)
  ON CONFLICT ON CONSTRAINT api_snapshots_pkey DO UPDATE
    SET state = excluded.state, created_at = excluded.created_at, digest = excluded.digest;

  DELETE FROM api_snapshots n
  WHERE n.aggregate_id = stream_id AND (
    n.version > stream_version
    OR (n.shape <> snapshot_shape AND n.version <= snapshot_version)
    OR (n.shape = snapshot_shape AND n.version <= (
      SELECT m.version FROM api_snapshots m
      WHERE m.aggregate_id = stream_id AND m.shape = snapshot_shape AND m.version <= stream_version
      ORDER BY m.version DESC OFFSET kept LIMIT 1)));
  RETURN stream_version;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
  -- PostgreSQL lets everybody execute a new function.
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', 'api_save_snapshot'::regproc::oid::regprocedure);
END
$$;
-- +goose StatementEnd
