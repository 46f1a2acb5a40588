package postgres

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keytrail/keytrail/eventstore"
)

const (
	// channel is told, without content, that there are new events.
	channel = "api_event_store"
	// notifyEvery is the least time between two notifications of one process. They
	// take a lock that all of a cluster's notifying transactions share, which is why
	// they are no part of an append.
	notifyEvery = 20 * time.Millisecond
	notifyLimit = 5 * time.Second
	// pollInterval is how often the head is looked up without a notification, so
	// that one that got lost delays and does no harm.
	pollInterval = 750 * time.Millisecond
)

// notify tells other processes of this one's appends.
func (s *Store) notify(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.appended:
		}
		send, cancel := context.WithTimeout(ctx, notifyLimit)
		_, err := s.appends.Exec(send, `SELECT pg_notify($1, '')`, channel)
		cancel()
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "telling other processes of new events failed, they find them by polling", slog.Any("error", err))
		}
		pause.Reset(notifyEvery)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// listen keeps the head up to date with what other processes append. It is the
// only listener of the store, on a connection of its own.
func (s *Store) listen(ctx context.Context, config *pgx.ConnConfig) {
	for failing := false; ; {
		err := s.listenConnection(ctx, config, func() { failing = false })
		if ctx.Err() != nil {
			return
		}
		if !failing {
			s.log.WarnContext(ctx, "listening for new events failed, connecting again", slog.Any("error", err))
		}
		failing = true
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollInterval):
		}
	}
}

func (s *Store) listenConnection(ctx context.Context, config *pgx.ConnConfig, listening func()) (err error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), notifyLimit)
		defer cancel()
		err = errors.Join(err, conn.Close(bye))
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	listening()
	start := time.NewTicker(pollInterval)
	defer start.Stop()
	for {
		// After LISTEN, so that nothing falls between the two.
		var head eventstore.Position
		if err := conn.QueryRow(ctx, headSQL).Scan(&head); err != nil {
			return err
		}
		s.head.Advance(head)
		select {
		case <-start.C:
			if err := s.lookForStart(ctx, conn); err != nil {
				return err
			}
		default:
		}
		wait, cancel := context.WithTimeout(ctx, pollInterval)
		_, err := conn.WaitForNotification(wait)
		timeout := wait.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !timeout {
			return err
		}
	}
}
