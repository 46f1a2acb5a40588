package app

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/outbound"
)

// LookupUser finds the user with this Keycloak id or exact user name, in the realm
// named, in the only one configured, or in any.
func (a *App) LookupUser(ctx context.Context, realm, idOrName string) (adapter.UserRef, error) {
	if realm == "" && len(a.Config.Keycloak.Realms) == 1 {
		realm = a.Config.Keycloak.Realms[0]
	}
	var realms []string
	if realm != "" {
		realms = []string{realm}
	}
	found, err := a.Users.Find(ctx, idOrName, realms...)
	switch {
	case err != nil:
		return adapter.UserRef{}, err
	case len(found) == 0:
		return adapter.UserRef{}, adapter.Errorf(adapter.CodeUserNotFound, "nothing is known of a user %q", idOrName).
			WithTry("keytrail user list, or keytrail reconcile to adopt the users that Keycloak has")
	case len(found) == 1:
		return adapter.UserRef{Realm: found[0].Realm, UserID: found[0].ID}, nil
	}
	names := make([]string, 0, len(found))
	sameRealm := true
	for _, u := range found {
		names = append(names, u.Realm+"/"+u.ID)
		sameRealm = sameRealm && u.Realm == found[0].Realm
	}
	e := adapter.Errorf(adapter.CodeInvalidRequest, "several users are called %q: %s", idOrName, strings.Join(names, ", "))
	if sameRealm {
		return adapter.UserRef{}, e.WithTry("the id of the one you mean")
	}
	return adapter.UserRef{}, e.WithTry("--realm with the realm of the one you mean")
}

// keycloakID matches what Keycloak gives as ids: UUIDs, and f:component:external for
// federated users.
var keycloakID = regexp.MustCompile(`^(?i:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|f:[^:]+:.+)$`)

// CommandRef is how a command names the user that a person named: by the id that is
// believed to be theirs, and by the exact user name where nothing is known of them.
func (a *App) CommandRef(ctx context.Context, realm, idOrName string) outbound.UserRef {
	ref, err := a.LookupUser(ctx, realm, idOrName)
	switch {
	case err == nil:
		name := ""
		if u, ok, err := a.Users.Get(ctx, ref.Realm, ref.UserID); err == nil && ok {
			name = u.Username
		}
		return outbound.UserRef{ID: ref.UserID, Username: name}
	case keycloakID.MatchString(idOrName):
		return outbound.UserRef{ID: idOrName}
	default:
		return outbound.UserRef{Username: idOrName}
	}
}

// userEvents reads a user's whole stream.
func (a *App) userEvents(ctx context.Context, ref adapter.UserRef) ([]adapter.Decoded, error) {
	return a.Codec.ReadStream(ctx, a.Store, adapter.UserStream(ref.Realm, ref.UserID))
}

// UserAt is the user as folded from what occurred until at; a zero time is now.
// Before the first known moment it is an error with code not_yet_known.
func (a *App) UserAt(ctx context.Context, ref adapter.UserRef, at time.Time) (adapter.User, error) {
	if at.IsZero() {
		u, ok, err := a.Users.Get(ctx, ref.Realm, ref.UserID)
		if err == nil && !ok {
			err = unknownUser(ref)
		}
		return u, err
	}
	then, ok, err := a.Codec.LoadUser(ctx, a.Store, a.Snapshots, ref, adapter.UserUntil{At: at})
	if err != nil || ok {
		return then.User, err
	}
	first, ok, err := a.Codec.LoadUser(ctx, a.Store, a.Snapshots, ref, adapter.UserUntil{})
	if err != nil {
		return adapter.User{}, err
	}
	if !ok {
		return adapter.User{}, unknownUser(ref)
	}
	return adapter.User{}, adapter.Errorf(adapter.CodeNotYetKnown, "nothing is known of user %s in realm %s before %s",
		ref.UserID, ref.Realm, first.FirstKnownAt.UTC().Format(time.RFC3339Nano))
}

func unknownUser(ref adapter.UserRef) error {
	return adapter.Errorf(adapter.CodeUserNotFound, "nothing is known of user %s in realm %s", ref.UserID, ref.Realm)
}

// UserHistory lists a user's events, newest first, with old and new values.
func (a *App) UserHistory(ctx context.Context, ref adapter.UserRef) ([]adapter.HistoryEntry, error) {
	events, err := a.userEvents(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, unknownUser(ref)
	}
	entries := adapter.UserHistory(events)
	slices.Reverse(entries)
	return entries, nil
}
