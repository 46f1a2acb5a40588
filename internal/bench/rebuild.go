package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/projections"
	"github.com/keytrail/keytrail/projections/users"
)

const (
	shadowTarget    = 0.75
	resumableTarget = 0.30
	// eventsPerUser is how many events a user has on average.
	eventsPerUser = 10
)

// rebuild measures folding the users anew.
func (r *run) rebuild(ctx context.Context, db database) (err error) {
	size, enough := r.size(1_000_000, 30_000, 500*time.Millisecond)
	r.Progress(fmt.Sprintf("filling a log of %d events about %d users", size, size/eventsPerUser))
	if size, err = fill(ctx, db, userBlocks(ctx, size, enough)); err != nil {
		return err
	}
	s, err := db.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	pdb := projectionsDB(s, db)
	if err := projections.Migrate(ctx, pdb); err != nil {
		return err
	}
	codec := newCodec()
	projection := users.New(s, codec)
	engine := func(ctx context.Context) (*projections.Engine, error) {
		e := projections.New(pdb, s, codec, projections.Options{})
		return e, errors.Join(e.Register(projection), e.Setup(ctx))
	}
	turns, err := r.alternate(ctx, fmt.Sprintf("rebuild of the users from %d events", size),
		side{"limit", timed(size, func(ctx context.Context) (int, error) {
			return foldInMemory(ctx, s, codec, (size+eventsPerUser-1)/eventsPerUser)
		})},
		side{"shadow", timed(size, func(ctx context.Context) (int, error) {
			e, err := engine(ctx)
			if err != nil {
				return 0, err
			}
			err = e.Rebuild(ctx, users.Name, nil)
			return size, err
		})},
		side{"resumable", func(ctx context.Context) (slice, error) {
			if err := forget(ctx, pdb, projection); err != nil {
				return slice{}, err
			}
			e, err := engine(ctx)
			if err != nil {
				return slice{}, err
			}
			return timed(size, func(ctx context.Context) (int, error) { return size, e.CatchUp(ctx, eventstore.Position(size)) })(ctx)
		}},
	)
	if err != nil {
		return err
	}
	const limit = "read, decode and fold in memory, nothing written"
	r.add(compare(Result{Case: "shadow", Limit: limit}, atLeast(shadowTarget), turns[1], turns[0], slice.perS))
	r.add(compare(Result{Case: "resumable", Limit: limit}, atLeast(resumableTarget), turns[2], turns[0], slice.perS))
	return nil
}

// foldInMemory is what a rebuild does at least. The log holds nothing but events about
// users, so all of it is read.
func foldInMemory(ctx context.Context, s eventstore.Reader, codec *adapter.Codec, people int) (n int, err error) {
	folded := make(map[uuid.UUID]*adapter.User, people)
	for e, err := range s.ReadLog(ctx, eventstore.LogQuery{}) {
		if err != nil {
			return n, err
		}
		d, err := codec.Decode(ctx, e)
		if err != nil {
			return n, err
		}
		u := folded[e.Stream.AggregateID()]
		if u == nil {
			u = &adapter.User{}
			folded[e.Stream.AggregateID()] = u
		}
		u.Apply(d)
		n++
	}
	if len(folded) != people {
		return n, fmt.Errorf("%d of %d users were folded", len(folded), people)
	}
	return n, nil
}

// forget drops the projection, so that it begins anew.
func forget(ctx context.Context, db projections.DB, p projections.Projection) error {
	for _, table := range p.Tables() {
		if _, err := db.Write.ExecContext(ctx, `DROP TABLE IF EXISTS `+projections.Live().Name(table)); err != nil {
			return fmt.Errorf("drop the users: %w", err)
		}
	}
	if _, err := db.Write.ExecContext(ctx, `DELETE FROM api_projection_checkpoints WHERE name = $1`, p.Name()); err != nil {
		return fmt.Errorf("drop the users: %w", err)
	}
	return nil
}

// person is a user of the synthetic log.
type person struct {
	id   string
	gate gate
}

// userBlocks are events about users: every tenth creates one, the others change any of
// those that there are, a second apart. There are fewer where there are enough before.
func userBlocks(ctx context.Context, size int, enough func() bool) iter.Seq2[*batch, error] {
	return func(yield func(*batch, error) bool) {
		rnd, codec := newRand(2), newCodec()
		admin := &adapter.Actor{Type: adapter.ActorKeycloakUser, ID: randomID(rnd), Username: "admin"}
		var people []person
		for at, last := 0, false; !last; at += blockEvents {
			b := &batch{events: make([]event, min(blockEvents, size-at))}
			for i := range b.events {
				number := at + i
				var p *person
				var payload adapter.UserPayload
				if number%eventsPerUser == 0 {
					id := randomID(rnd)
					people = append(people, person{id: id, gate: gate{stream: adapter.UserStream(realm, id), first: eventstore.Position(number + 1)}})
					p = &people[len(people)-1]
					payload = &adapter.UserApiCreated{UserChange: profileChange(id, rnd, text(rnd, 60))}
				} else {
					p = &people[rnd.IntN(len(people))]
					payload = userChange(p.id, rnd)
				}
				p.gate.version++
				p.gate.last = eventstore.Position(number + 1)
				when := begin.Add(time.Duration(number) * time.Second)
				e, err := codec.Encode(ctx, adapter.Draft{
					Payload: payload, OccurredAt: when, Meta: adapter.Metadata{CorrelationID: eventstore.NewID(), Actor: admin, Source: "keycloak"},
				})
				if err != nil {
					yield(nil, err)
					return
				}
				b.events[i] = event{NewEvent: e, position: p.gate.last, stream: p.gate.stream, version: p.gate.version, recordedAt: when}
			}
			if last = at+blockEvents >= size || enough(); last {
				for _, p := range people {
					b.streams = append(b.streams, p.gate)
				}
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

func userChange(id string, rnd *rand.Rand) adapter.UserPayload {
	ref := adapter.UserRef{Realm: realm, UserID: id}
	switch rnd.IntN(10) {
	case 0, 1:
		role := adapter.Role{ID: randomID(rnd), Name: fmt.Sprint("role-", rnd.IntN(20))}
		if rnd.IntN(3) == 0 {
			return &adapter.UserApiRolesChanged{UserRef: ref, Removed: []adapter.Role{role}}
		}
		return &adapter.UserApiRolesChanged{UserRef: ref, Added: []adapter.Role{role}}
	case 2:
		return &adapter.UserApiGroupsChanged{UserRef: ref, Joined: []adapter.Group{{ID: randomID(rnd), Path: fmt.Sprint("/staff/", rnd.IntN(20))}}}
	case 3:
		return &adapter.UserApiDisabled{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{Enabled: adapter.Set(false)}, Via: "admin"}}
	case 4:
		return &adapter.UserApiEnabled{UserChange: adapter.UserChange{UserRef: ref, Set: adapter.Profile{Enabled: adapter.Set(true)}, Via: "admin"}}
	default:
		return &adapter.UserApiUpdated{UserChange: profileChange(id, rnd, text(rnd, 60))}
	}
}
