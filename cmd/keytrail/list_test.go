package main

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
)

func TestUpToReachesItsLimitPageByPage(t *testing.T) {
	t.Parallel()
	const page, there = 10, 35
	numbers := func(limit int, cursor string) (items []int, next string, err error) {
		at := 0
		if cursor != "" {
			if at, err = strconv.Atoi(cursor); err != nil {
				return nil, "", err
			}
		}
		for ; at < there && len(items) < min(limit, page); at++ {
			items = append(items, at)
		}
		if at < there {
			next = strconv.Itoa(at)
		}
		return items, next, nil
	}
	for _, c := range []struct {
		limit  int
		cursor string
		first  int
		n      int
		next   string
	}{
		{limit: 5, n: 5, next: "5"},
		{limit: 10, n: 10, next: "10"},
		{limit: 25, n: 25, next: "25"},
		{limit: 25, cursor: "20", first: 20, n: 15},
		{limit: 35, n: 35},
		{limit: 10_000, n: 35},
	} {
		got, next, err := upTo(c.limit, c.cursor, numbers)
		require.NoError(t, err)
		require.Len(t, got, c.n)
		require.Equal(t, c.first, got[0])
		require.Equal(t, c.first+c.n-1, got[c.n-1])
		require.Equal(t, c.next, next)
	}
	_, _, err := upTo(1, "", func(int, string) ([]int, string, error) { return nil, "", errors.New("gone") })
	require.EqualError(t, err, "gone")
}

func TestAmbiguousNamesAreBounded(t *testing.T) {
	t.Parallel()
	var users []adapter.User
	for i := range 600 {
		at := time.Date(2026, 11, 23, 8, 0, i, 0, time.UTC)
		users = append(users, adapter.User{Realm: "acme", ID: fmt.Sprint("id-", i), Username: "o'w1", Deleted: true, DeletedAt: &at})
	}
	err := ambiguous("o'w1", users)
	require.Equal(t, exitUsage, exitStatus(err))
	p := problemOf(err)
	require.Regexp(t, `^600 users are or were called o'w1: id-599 in acme, deleted 2026-11-23T08:09:59Z; .*id-595 in acme, [^;]*; and 595 more$`, p.Detail)
	require.Equal(t, `the id of the one you mean; keytrail user list --username 'o'\''w1' --realm acme shows all`, p.Try)

	users = []adapter.User{{Realm: "acme", ID: "a"}, {Realm: "globex", ID: "b"}}
	p = problemOf(ambiguous("w1", users))
	require.Equal(t, "2 users are or were called w1: a in acme; b in globex", p.Detail)
	require.Equal(t, "the id of the one you mean, or its realm with --realm; keytrail user list --username w1 shows all", p.Try)
}
