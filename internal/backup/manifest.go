package backup

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/eventstore"
)

// format is the version of the manifest and of what the digests run over.
const format = 1

// manifest says what a backup must hold.
type manifest struct {
	Format int       `json:"format"`
	MadeAt time.Time `json:"made_at"`
	// Source is "sqlite" or "postgres".
	Source string              `json:"source"`
	Head   eventstore.Position `json:"head"`
	// EventsDigest runs over the events up to the head, BodiesDigest over the raw bodies.
	EventsDigest string `json:"events_sha256"`
	RawBodies    int64  `json:"raw_bodies"`
	BodiesDigest string `json:"raw_bodies_sha256"`
	state
}

// state is what a store knows beside its log.
type state struct {
	Consumers []consumer `json:"consumers"`
	Leases    []lease    `json:"leases"`
}

// consumer is how far a consumer of the log has come.
type consumer struct {
	Name     string              `json:"name"`
	Position eventstore.Position `json:"position"`
}

// lease is what a job remembers. State may hold a secret.
type lease struct {
	Name    string          `json:"name"`
	Epoch   int64           `json:"epoch"`
	LastRun *time.Time      `json:"last_run"`
	State   json.RawMessage `json:"state"`
}

// sums are digests over what a store holds.
type sums struct {
	upTo   eventstore.Position // events behind it do not count
	events hash.Hash
	bodies hash.Hash
	n      int64 // raw bodies
	buf    []byte
}

func newSums(upTo eventstore.Position) *sums {
	return &sums{upTo: upTo, events: sha256.New(), bodies: sha256.New()}
}

func (s *sums) addText(text []byte) {
	s.buf = binary.BigEndian.AppendUint64(s.buf, uint64(len(text)))
	s.buf = append(s.buf, text...)
}

func (s *sums) addNumber(n int64) { s.buf = binary.BigEndian.AppendUint64(s.buf, uint64(n)) }

func (s *sums) addID(id uuid.UUID) { s.buf = append(s.buf, id[:]...) }

func (s *sums) event(e eventstore.Event) {
	if e.Position > s.upTo {
		return
	}
	s.buf = s.buf[:0]
	s.addNumber(int64(e.Position))
	s.addID(e.ID)
	s.addID(e.Stream.AggregateID())
	s.addText([]byte(e.Stream.String()))
	s.addNumber(int64(e.Version))
	s.addText([]byte(e.Type))
	s.addText(e.Data)
	s.addText(e.Metadata)
	s.addID(e.CorrelationID)
	s.addID(e.CausationID)
	s.addNumber(e.OccurredAt.UnixMicro())
	s.addNumber(e.RecordedAt.UnixMicro())
	s.events.Write(s.buf)
}

// body adds a raw body by its digest, which whoever reads it compares with the bytes.
func (s *sums) body(b eventstore.KeptBody) {
	s.n++
	s.buf = s.buf[:0]
	s.addID(b.EventID)
	s.addText([]byte(b.ContentType))
	s.addNumber(b.RecordedAt.UnixMicro())
	s.addText([]byte(b.Digest))
	s.bodies.Write(s.buf)
}

func (s *sums) eventsDigest() string { return hex.EncodeToString(s.events.Sum(nil)) }
func (s *sums) bodiesDigest() string { return hex.EncodeToString(s.bodies.Sum(nil)) }

// errNoManifest says that a file is a store, or something else, and no backup.
var errNoManifest = errors.New("it has no manifest")

const manifestTable = "keytrail_backup"

// writeManifest puts the manifest into the file in the place of any other.
func writeManifest(ctx context.Context, db *sql.DB, m manifest) (err error) {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	for _, statement := range []string{
		`DROP TABLE IF EXISTS ` + manifestTable,
		`CREATE TABLE ` + manifestTable + ` (manifest TEXT NOT NULL, digest TEXT NOT NULL) STRICT`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO `+manifestTable+` (manifest, digest) VALUES ($1, $2)`,
		string(text), eventstore.BodyDigest(text)); err != nil {
		return err
	}
	return tx.Commit()
}

// readManifest returns errNoManifest where there is none, and what is wrong with one
// that is damaged.
func readManifest(ctx context.Context, db *sql.DB) (m manifest, err error) {
	var n int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1`, manifestTable).Scan(&n); err != nil {
		return m, err
	}
	if n == 0 {
		return m, errNoManifest
	}
	var text, digest string
	if err := db.QueryRowContext(ctx, `SELECT manifest, digest FROM `+manifestTable).Scan(&text, &digest); err != nil {
		return m, fmt.Errorf("read the manifest: %w", err)
	}
	// What a JSON error quotes might be a secret.
	if digest != eventstore.BodyDigest([]byte(text)) || json.Unmarshal([]byte(text), &m) != nil {
		return m, errors.New("the manifest is damaged")
	}
	if m.Format > format {
		return m, fmt.Errorf("the backup has format %d, newer than this program's %d\nTry: restore it with the newer keytrail that made it", m.Format, format)
	}
	return m, nil
}

// openFile opens a SQLite file that only this process knows, for writing. What is
// written is one file: nothing lies beside it once it is closed.
func openFile(path string) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_dqs": {"0"}, "_journal_mode": {"DELETE"}, "_synchronous": {"FULL"}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(absolute), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}
