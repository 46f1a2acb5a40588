package main

import "fmt"

// checkLimit refuses a --limit that lists nothing.
func checkLimit(limit int) error {
	if limit <= 0 {
		return &usageError{fmt.Errorf("--limit %d lists nothing\nTry: --limit with 1 or more", limit)}
	}
	return nil
}

// upTo lists as many as limit, page by page where a page holds fewer, and returns the
// cursor of what follows.
func upTo[T any](limit int, cursor string, page func(limit int, cursor string) ([]T, string, error)) (all []T, next string, err error) {
	for {
		items, next, err := page(limit-len(all), cursor)
		if err != nil {
			return nil, "", err
		}
		all = append(all, items...)
		if next == "" || len(all) >= limit {
			return all, next, nil
		}
		cursor = next
	}
}

// count is a number of things, in words.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
