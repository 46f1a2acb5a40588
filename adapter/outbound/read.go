package outbound

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/eventstore"
	"github.com/keytrail/keytrail/keycloak"
)

// ObserveUser reads a user with their roles and groups, because events have left
// something open, and records the read as a call and what it found as UserApiObserved.
// A user who is gone is found to be gone, and is no error.
func (c *Commands) ObserveUser(ctx context.Context, ref adapter.UserRef, because string) (Outcome, error) {
	loaded, _, err := c.Codec.LoadUser(ctx, c.Store, c.Snapshots, ref, adapter.UserUntil{})
	if err != nil {
		return Outcome{}, err
	}
	believed := loaded.User
	rec, err := c.begin(ctx, intent{
		command: "user.read", realm: ref.Realm, ref: UserRef{ID: ref.UserID, Username: believed.Username},
		method: http.MethodGet, template: userTemplate,
	})
	if err != nil {
		return notBegun(err)
	}
	seen := &adapter.UserApiObserved{UserRef: ref, Because: because}
	call := withRecording(ctx, rec)
	live, err := c.Keycloak.User(call, ref.Realm, ref.UserID)
	var answer *keycloak.APIError
	switch {
	case errors.As(err, &answer) && answer.UserNotFound():
		err = nil
	case err == nil:
		seen.Present, seen.Complete = true, true
		seen.Set = liveProfile(live)
		if live.CreatedTimestamp != nil {
			at := time.UnixMilli(*live.CreatedTimestamp).UTC()
			seen.CreatedAt = &at
		}
		if seen.Memberships, err = c.readMemberships(call, rec, ref, believed); err == nil && believed.LockedUntil != nil {
			seen.Set.LockedUntil, err = c.readLockout(call, rec, ref)
		}
	}

	rec.mu.Lock()
	defer rec.mu.Unlock()
	now := c.Clock()
	took := milliseconds(now.Sub(rec.started))
	var others []eventstore.StreamAppend
	out := rec.outcome(adapter.CallSucceeded, ref.UserID)
	code := 0
	if n := len(rec.attempts); n > 0 {
		code = rec.attempts[n-1].StatusCode
	}
	if err != nil {
		out.Status = adapter.CallFailed
		rec.add(&adapter.ApiCallFailed{CallID: rec.callID, StatusCode: code, Attempts: len(rec.attempts), DurationMS: took, CallError: explain(err)}, now)
	} else {
		succeeded := rec.add(&adapter.ApiCallSucceeded{CallID: rec.callID, StatusCode: code, Attempts: len(rec.attempts), DurationMS: took}, now)
		meta := rec.meta
		meta.CausationID = &succeeded
		// The read wins over all that was recorded before it was sent, whatever Keycloak's
		// clock said of it.
		at := rec.started
		if !at.After(believed.Last.At) {
			at = believed.Last.At.Add(time.Microsecond)
		}
		e, err := c.Codec.Encode(ctx, adapter.Draft{Payload: seen, OccurredAt: at, Meta: meta})
		if err != nil {
			return out, err
		}
		others = []eventstore.StreamAppend{{Stream: adapter.UserStream(ref.Realm, ref.UserID), Events: []eventstore.NewEvent{e}}}
	}
	if err := c.commit(ctx, rec, others); err != nil {
		return out, err
	}
	c.observe(rec, out.Status)
	if err != nil {
		return out, failure(out, explain(err), err)
	}
	return out, nil
}

// readLockout reads until when a user may not log in.
func (c *Commands) readLockout(ctx context.Context, rec *recording, ref adapter.UserRef) (adapter.Optional[time.Time], error) {
	until := adapter.Clear[time.Time]()
	err := rec.read(ctx, failuresTemplate, func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		failures, err := c.Keycloak.LoginFailures(ctx, ref.Realm, ref.UserID)
		if failures.NotBefore > 0 {
			until = adapter.Set(time.Unix(failures.NotBefore, 0).UTC())
		}
		return err
	})
	return until, err
}

// readMemberships reads the roles, groups and organizations that a user has directly.
func (c *Commands) readMemberships(ctx context.Context, rec *recording, ref adapter.UserRef, believed adapter.User) (adapter.Memberships, error) {
	var m adapter.Memberships
	realm, id := ref.Realm, ref.UserID
	err := rec.read(ctx, userTemplate+"/role-mappings", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		mappings, err := c.Keycloak.UserRoles(ctx, realm, id)
		if err != nil {
			return err
		}
		roles := []string{}
		for _, r := range mappings.RealmMappings {
			roles = append(roles, r.Name)
		}
		m.Roles = adapter.Set(roles)
		byClient := make(map[string][]string)
		for _, client := range mappings.ClientMappings {
			if m.Clients == nil {
				m.Clients = make(map[string]string)
			}
			m.Clients[client.ID] = client.Client
			for _, r := range client.Mappings {
				byClient[client.Client] = append(byClient[client.Client], r.Name)
			}
		}
		m.ClientRoles = adapter.Set(byClient)
		return nil
	})
	if err != nil {
		return m, err
	}
	// The clients' part is left out where there is none, and where the service account
	// lacks view-clients (measured on 26.7.3): a realm always has clients.
	if roles, _ := m.ClientRoles.Get(); len(roles) == 0 && len(believed.ClientRoles) > 0 {
		err := rec.read(ctx, "/admin/realms/{realm}/clients", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
			clients, err := c.Keycloak.Clients(ctx, realm, 0, 1)
			if len(clients) == 0 {
				m.ClientRoles = adapter.Optional[map[string][]string]{}
			}
			return err
		})
		if err != nil && !hidden(err) {
			return m, err
		}
	}
	err = rec.read(ctx, userTemplate+"/groups", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		groups, err := c.Keycloak.UserGroups(ctx, realm, id)
		paths := make([]string, 0, len(groups))
		for _, g := range groups {
			paths = append(paths, g.Path)
		}
		m.Groups = adapter.Set(paths)
		return err
	})
	if err != nil || len(believed.Organizations) == 0 {
		return m, err
	}
	err = rec.read(ctx, "/admin/realms/{realm}/organizations/members/{id}/organizations", func(ctx context.Context, _ *adapter.ApiCallPreconditionRead) error {
		found, err := c.Keycloak.UserOrganizations(ctx, realm, id)
		if err != nil {
			return err
		}
		organizations := make([]adapter.Organization, 0, len(found))
		for _, o := range found {
			organizations = append(organizations, adapter.Organization{ID: o.ID, Alias: o.Alias})
		}
		m.Organizations = adapter.Set(organizations)
		return nil
	})
	if hidden(err) {
		err = nil
	}
	return m, err
}

// hidden tells a read that the service account may not make, or that the realm has no
// use for, as with organizations switched off: the field stays as it is believed.
func hidden(err error) bool {
	var answer *keycloak.APIError
	return errors.As(err, &answer) && (answer.Kind == keycloak.KindForbidden || answer.Kind == keycloak.KindNotFound)
}

// liveProfile is the whole profile of a user as it was read: what is not there is none.
func liveProfile(u keycloak.User) adapter.Profile {
	enabled := u.Enabled != nil && *u.Enabled
	verified := u.EmailVerified != nil && *u.EmailVerified
	attributes := u.Attributes
	if attributes == nil {
		attributes = map[string][]string{}
	}
	return adapter.Profile{
		Username: adapter.Set(strings.ToLower(u.Username)), Email: adapter.SetOrClear(u.Email),
		FirstName: adapter.SetOrClear(u.FirstName), LastName: adapter.SetOrClear(u.LastName),
		Enabled: adapter.Set(enabled), EmailVerified: adapter.Set(verified),
		Attributes: adapter.Set(attributes), RequiredActions: adapter.Set(append([]string{}, u.RequiredActions...)),
	}
}
