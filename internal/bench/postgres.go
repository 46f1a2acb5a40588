package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/keytrail/keytrail/config"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/eventstore/postgres"
)

// schemaPrefix begins the names of the schemas that benchmarks work in.
const schemaPrefix = "keytrail_bench_"

// postgresDatabase is a schema of its own in a PostgreSQL database.
type postgresDatabase struct {
	// outer is the URL as given, inner the same with the schema as the search path.
	outer, inner string
	schema       string
}

func newPostgres(ctx context.Context, u config.StoreURL) (database, error) {
	parsed, err := url.Parse(u.Reveal())
	if err != nil {
		return nil, errors.New("the store URL cannot be read") // the error would show the password
	}
	d := &postgresDatabase{outer: u.Reveal(), schema: schemaPrefix + strings.ToLower(rand.Text()[:12])}
	q := parsed.Query()
	q.Set("search_path", d.schema)
	parsed.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq wants it
	d.inner = parsed.String()
	if err := d.exec(ctx, `CREATE SCHEMA `+d.schema); err != nil {
		return nil, fmt.Errorf("create a schema to measure in: %w", err)
	}
	return d, nil
}

func (d *postgresDatabase) kind() string { return string(config.Postgres) }

// connect connects as the store does.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	c.RuntimeParams["application_name"] = "keytrail bench"
	c.RuntimeParams["default_transaction_isolation"] = "read committed"
	c.RuntimeParams["synchronous_commit"] = "on"
	c.RuntimeParams["timezone"] = "UTC"
	c.RuntimeParams["plan_cache_mode"] = "force_generic_plan" // as api_append has it
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			return nil, err
		}
		return nil, fmt.Errorf("connect to PostgreSQL: %w: %w", eventstore.ErrUnavailable, err)
	}
	return conn, nil
}

func (d *postgresDatabase) exec(ctx context.Context, text string) error {
	conn, err := connect(ctx, d.outer)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, text)
	return errors.Join(err, conn.Close(ctx))
}

func (d *postgresDatabase) remove(ctx context.Context) error {
	if err := d.exec(ctx, `DROP SCHEMA IF EXISTS `+d.schema+` CASCADE`); err != nil {
		return fmt.Errorf("%w\nTry: DROP SCHEMA %s CASCADE, which is what the benchmark has left", err, d.schema)
	}
	return nil
}

func (d *postgresDatabase) version(ctx context.Context) (version string, err error) {
	conn, err := connect(ctx, d.outer)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&version)
	// "15.18 (Debian 15.18-1.pgdg)": the packager does not matter.
	version, _, _ = strings.Cut(version, " ")
	return "PostgreSQL " + version, errors.Join(err, conn.Close(ctx))
}

func (d *postgresDatabase) server(ctx context.Context) (pid int, unknown string) {
	const cannotTell = "the PostgreSQL server is on this machine, and its processes cannot be told from others'"
	conn, err := connect(ctx, d.outer)
	if err != nil {
		return 0, cannotTell
	}
	defer func() { _ = conn.Close(ctx) }() // nothing was written on it
	if !onThisMachine(conn.PgConn().Conn().RemoteAddr()) {
		return 0, ""
	}
	var backend int
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		return 0, cannotTell
	}
	pid, ok := parentOfServer(backend)
	if !ok {
		return 0, cannotTell
	}
	return pid, ""
}

func onThisMachine(server net.Addr) bool {
	tcp, ok := server.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return true // a socket file
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true // then it is not known
	}
	for _, a := range own {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(tcp.IP) {
			return true
		}
	}
	return false
}

func (d *postgresDatabase) migrate(ctx context.Context) error {
	return postgres.Migrate(ctx, d.inner)
}

func (d *postgresDatabase) open(ctx context.Context) (store, error) {
	return postgres.Open(ctx, d.inner, postgres.Options{})
}

func (d *postgresDatabase) direct(ctx context.Context) (tables, error) {
	conn, err := connect(ctx, d.inner)
	if err != nil {
		return nil, err
	}
	return &postgresTables{conn: conn}, nil
}

// postgresTables is one connection.
type postgresTables struct {
	conn *pgx.Conn
	// placedTo is the position up to which there are partitions.
	placedTo eventstore.Position
}

// The SQL of the limit: what api_append writes, by plain statements, with positions and
// versions that the client has worked out.
const (
	insertEvents = `INSERT INTO api_event_store (position, event_id, aggregate_id, version, event_type, event_data, event_metadata,
		correlation_id, causation_id, stream, occurred_at, created_at)
	SELECT e.position, e.id, e.aggregate_id, e.version, e.type, e.data::json, e.metadata::json, e.correlation, e.causation, e.stream, e.occurred, e.recorded
	FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::uuid[], $10::text[], $11::timestamptz[], $12::timestamptz[])
		AS e (position, id, aggregate_id, version, type, data, metadata, correlation, causation, stream, occurred, recorded)`
	insertIDs = `INSERT INTO api_event_ids (event_id, position)
	SELECT e.id, e.position FROM unnest($1::uuid[], $2::bigint[]) AS e (id, position)`
	upsertStreams = `INSERT INTO api_streams AS s (aggregate_id, stream, version, first_position, last_position)
	SELECT g.aggregate_id, g.stream, g.version, g.first, g.last
	FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS g (aggregate_id, stream, version, first, last)
	ON CONFLICT (aggregate_id) DO UPDATE SET version = excluded.version, last_position = excluded.last_position`
	scanLog = `SELECT position, event_id, aggregate_id, stream, version, event_type, event_data, event_metadata, correlation_id, causation_id, occurred_at, created_at
	FROM api_event_store ORDER BY position`
)

// place makes partitions ahead of need, as the store does.
func (t *postgresTables) place(ctx context.Context, b *batch) error {
	last := b.events[len(b.events)-1].position
	if last <= t.placedTo {
		return nil
	}
	return t.conn.QueryRow(ctx, `SELECT api_prepare_partitions($1)`, int64(last)).Scan(&t.placedTo)
}

func (t *postgresTables) write(ctx context.Context, b *batch) error {
	if err := t.place(ctx, b); err != nil {
		return err
	}
	n := len(b.events)
	var (
		positions    = make([]int64, n)
		ids          = make([]pgtype.UUID, n)
		aggregates   = make([]pgtype.UUID, n)
		versions     = make([]int32, n)
		types        = make([]string, n)
		data         = make([]string, n)
		metadata     = make([]string, n)
		correlations = make([]pgtype.UUID, n)
		causations   = make([]pgtype.UUID, n)
		streams      = make([]string, n)
		occurred     = make([]time.Time, n)
		recorded     = make([]time.Time, n)
	)
	for i, e := range b.events {
		positions[i], ids[i], aggregates[i], versions[i] = int64(e.position), pgUUID(e.ID), pgUUID(e.stream.AggregateID()), int32(e.version)
		types[i], data[i], metadata[i] = e.Type, string(e.Data), string(e.Metadata)
		correlations[i], causations[i], streams[i] = pgUUID(e.CorrelationID), pgUUID(e.CausationID), e.stream.String()
		occurred[i], recorded[i] = e.OccurredAt, e.recordedAt
	}
	// One message: PostgreSQL makes one transaction of what comes before the Sync.
	var message pgx.Batch
	message.Queue(insertEvents, positions, ids, aggregates, versions, types, data, metadata, correlations, causations, streams, occurred, recorded)
	message.Queue(insertIDs, ids, positions)
	g := len(b.streams)
	var (
		keys      = make([]pgtype.UUID, g)
		names     = make([]string, g)
		reached   = make([]int32, g)
		positionA = make([]int64, g)
		positionZ = make([]int64, g)
	)
	for i, s := range b.streams {
		keys[i], names[i], reached[i] = pgUUID(s.stream.AggregateID()), s.stream.String(), int32(s.version)
		positionA[i], positionZ[i] = int64(s.first), int64(s.last)
	}
	message.Queue(upsertStreams, keys, names, reached, positionA, positionZ)
	return t.conn.SendBatch(ctx, &message).Close()
}

func (t *postgresTables) fill(ctx context.Context, b *batch) error {
	if err := t.place(ctx, b); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, t.conn, func(tx pgx.Tx) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"api_event_store"}, []string{
			"position", "event_id", "aggregate_id", "version", "event_type", "event_data", "event_metadata",
			"correlation_id", "causation_id", "stream", "occurred_at", "created_at",
		}, pgx.CopyFromSlice(len(b.events), func(i int) ([]any, error) {
			e := &b.events[i]
			return []any{
				int64(e.position), pgUUID(e.ID), pgUUID(e.stream.AggregateID()), int32(e.version), e.Type, []byte(e.Data), []byte(e.Metadata),
				pgUUID(e.CorrelationID), pgUUID(e.CausationID), e.stream.String(), e.OccurredAt, e.recordedAt,
			}, nil
		}))
		if err != nil {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"api_event_ids"}, []string{"event_id", "position"},
			pgx.CopyFromSlice(len(b.events), func(i int) ([]any, error) {
				return []any{pgUUID(b.events[i].ID), int64(b.events[i].position)}, nil
			}))
		if err != nil {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"api_streams"}, []string{"aggregate_id", "stream", "version", "first_position", "last_position"},
			pgx.CopyFromSlice(len(b.streams), func(i int) ([]any, error) {
				s := &b.streams[i]
				return []any{pgUUID(s.stream.AggregateID()), s.stream.String(), int32(s.version), int64(s.first), int64(s.last)}, nil
			}))
		return err
	})
}

func (t *postgresTables) filled(ctx context.Context) error {
	for _, table := range []string{"api_event_store", "api_event_ids", "api_streams"} {
		if _, err := t.conn.Exec(ctx, `VACUUM (ANALYZE) `+table); err != nil {
			return err
		}
	}
	return nil
}

func (t *postgresTables) scan(ctx context.Context) (n int, err error) {
	rows, err := t.conn.Query(ctx, scanLog)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			position                              int64
			version                               int32
			id, aggregate, correlation, causation pgtype.UUID
			stream, typ                           string
			data, metadata                        []byte
			occurredAt, recordedAt                time.Time
		)
		if err := rows.Scan(&position, &id, &aggregate, &stream, &version, &typ, &data, &metadata, &correlation, &causation, &occurredAt, &recordedAt); err != nil {
			return n, err
		}
		n++
	}
	return n, rows.Err()
}

func (t *postgresTables) close(ctx context.Context) error { return t.conn.Close(ctx) }

func pgUUID(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: id != uuid.Nil} }
