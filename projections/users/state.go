package users

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/internal/hotjson"
)

// state is a user as the column state holds it. Most of a user would be the origins of
// its fields, and most of these are the same few events of the same few people: they
// are written once and referred to by number, which halves what is written and read.
type state struct {
	adapter.User // without origins
	// Fields are sorted by name, so that equal users are written equally.
	Fields  []field          `json:"fields,omitempty"`
	Sources []source         `json:"sources,omitempty"`
	Actors  []*adapter.Actor `json:"actors,omitempty"`
}

// source is an event that is the origin of fields.
type source struct {
	EventID uuid.UUID          `json:"event_id"`
	At      time.Time          `json:"at"`
	Type    string             `json:"type,omitempty"`
	Version eventstore.Version `json:"version,omitempty"`
	// Actor is a number in Actors, counted from 1; 0 is none.
	Actor int `json:"actor,omitempty"`
}

// field is what an origin says of its field alone.
type field struct {
	Name string `json:"name"`
	// Source is a number in Sources, counted from 0.
	Source   int               `json:"source"`
	Inferred bool              `json:"inferred,omitempty"`
	Doubtful bool              `json:"doubtful,omitempty"`
	Rivals   []json.RawMessage `json:"rivals,omitempty"`
	Again    *adapter.Again    `json:"again,omitempty"`
	Touched  []adapter.Touch   `json:"touched,omitempty"`
}

func encode(u adapter.User) ([]byte, error) {
	s := state{User: u}
	s.User.Origins = nil
	s.Fields, s.Sources = make([]field, 0, len(u.Origins)), make([]source, 0, 8)
	for _, name := range slices.Sorted(maps.Keys(u.Origins)) {
		o := u.Origins[name]
		s.Fields = append(s.Fields, field{
			Name: name, Source: s.source(o),
			Inferred: o.Inferred, Doubtful: o.Doubtful, Rivals: o.Rivals, Again: o.Again, Touched: o.Touched,
		})
	}
	return json.Marshal(&s)
}

func (s *state) source(o adapter.Origin) int {
	from := source{EventID: o.EventID, At: o.At, Type: o.Type, Version: o.Version, Actor: s.actor(o.Actor)}
	i := slices.IndexFunc(s.Sources, func(other source) bool {
		same := other
		same.At = from.At // which may be the same moment in another zone
		return same == from && other.At.Equal(from.At)
	})
	if i < 0 {
		i = len(s.Sources)
		s.Sources = append(s.Sources, from)
	}
	return i
}

func (s *state) actor(a *adapter.Actor) int {
	if a == nil {
		return 0
	}
	i := slices.IndexFunc(s.Actors, func(other *adapter.Actor) bool { return other == a || *other == *a })
	if i < 0 {
		i = len(s.Actors)
		s.Actors = append(s.Actors, a)
	}
	return i + 1
}

// decode reads what encode wrote, and what the program wrote before version 5, whose
// rows are read until the rebuild is done.
func decode(text []byte) (adapter.User, error) {
	var s state
	if err := hotjson.Unmarshal(text, &s); err != nil {
		return adapter.User{}, fmt.Errorf("state of a user: %w", err)
	}
	u := s.User
	if len(s.Fields) > 0 {
		u.Origins = make(map[string]adapter.Origin, len(s.Fields))
	}
	for _, f := range s.Fields {
		if f.Source < 0 || f.Source >= len(s.Sources) || s.Sources[f.Source].Actor < 0 || s.Sources[f.Source].Actor > len(s.Actors) {
			return adapter.User{}, fmt.Errorf("state of user %s: the origin of %s is not in it", u.ID, f.Name)
		}
		from := s.Sources[f.Source]
		o := adapter.Origin{
			EventID: from.EventID, At: from.At, Type: from.Type, Version: from.Version,
			Inferred: f.Inferred, Doubtful: f.Doubtful, Rivals: f.Rivals, Again: f.Again, Touched: f.Touched,
		}
		if from.Actor > 0 {
			o.Actor = s.Actors[from.Actor-1]
		}
		u.Origins[f.Name] = o
	}
	return u, nil
}
