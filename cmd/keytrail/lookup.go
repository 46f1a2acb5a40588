package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/internal/app"
)

// lookupUser finds the user that a person named. Where several have the name, or had it
// until they were deleted, it names some of them and says how to choose.
func lookupUser(ctx context.Context, a *app.App, on target) (adapter.UserRef, error) {
	ref, err := a.LookupUser(ctx, on.Realm, on.ID)
	if adapter.CodeOf(err) != adapter.CodeInvalidRequest {
		return ref, err
	}
	realms := a.Config.Keycloak.Realms
	if on.Realm != "" || len(realms) != 1 {
		realms = nil
	}
	if on.Realm != "" {
		realms = []string{on.Realm}
	}
	found, findErr := a.Users.Find(ctx, on.ID, realms...)
	if findErr != nil || len(found) < 2 {
		return ref, err
	}
	return adapter.UserRef{}, ambiguous(on.ID, found)
}

// ambiguous lists some of the users among whom a name does not decide, those deleted
// last first.
func ambiguous(name string, users []adapter.User) error {
	const named = 5
	slices.SortStableFunc(users, func(a, b adapter.User) int { return deletedAt(b).Compare(deletedAt(a)) })
	var choices []string
	for _, u := range users[:min(len(users), named)] {
		choice := fmt.Sprintf("%s in %s", plain(u.ID), plain(u.Realm))
		if u.Deleted {
			choice += ", deleted " + deletedAt(u).UTC().Format(time.RFC3339)
		}
		choices = append(choices, choice)
	}
	more := ""
	if len(users) > named {
		more = fmt.Sprintf("; and %d more", len(users)-named)
	}
	list := "keytrail user list --username " + shellWord(name)
	e := adapter.Errorf(adapter.CodeInvalidRequest, "%d users are or were called %s: %s%s", len(users), plain(name), strings.Join(choices, "; "), more)
	for _, u := range users {
		if u.Realm != users[0].Realm {
			return e.WithTry("the id of the one you mean, or its realm with --realm; %s shows all", list)
		}
	}
	return e.WithTry("the id of the one you mean; %s --realm %s shows all", list, shellWord(users[0].Realm))
}

func deletedAt(u adapter.User) time.Time {
	if u.DeletedAt == nil {
		return time.Time{}
	}
	return *u.DeletedAt
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// shellWord is a word as it is typed.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
