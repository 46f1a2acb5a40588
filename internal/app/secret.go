package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/keytrail/keytrail/internal/lease"
)

// secrets keeps a random secret of the store beside the log, in the leases' table: no
// event, export or answer has it.
type secrets struct {
	leases *lease.Leases

	mu     sync.Mutex
	secret []byte
}

const (
	secretName = "request-secret"
	secretSize = 32
	// secretTTL is how long the process that makes the secret keeps others waiting, and
	// secretPause how often these look.
	secretTTL   = 5 * time.Second
	secretPause = 20 * time.Millisecond
)

// Secret returns the secret. The first process that asks makes it.
func (s *secrets) Secret(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.secret == nil {
		found, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		if found != nil {
			s.secret = found
			break
		}
		if _, err := s.leases.Hold(ctx, secretName, owner(), secretTTL, s.make); err != nil {
			return nil, fmt.Errorf("making the store's secret: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(secretPause):
		}
	}
	return s.secret, nil
}

func (s *secrets) read(ctx context.Context) ([]byte, error) {
	record, _, err := s.leases.Read(ctx, secretName)
	if err != nil || record.State == nil {
		return nil, err
	}
	var secret []byte
	if err := json.Unmarshal(record.State, &secret); err != nil || len(secret) != secretSize {
		// What a JSON error quotes would be the secret.
		return nil, fmt.Errorf("the store's secret is damaged: delete the row %s of api_leases; until then, requests that carry a password take no Idempotency-Key", secretName)
	}
	return secret, nil
}

// make saves a new secret, unless another process has done so before the lease was
// taken. One that loses the lease meanwhile can save nothing.
func (s *secrets) make(ctx context.Context, l *lease.Lease) error {
	found, err := s.read(ctx)
	if err != nil || found != nil {
		return err
	}
	secret := make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	return l.Save(ctx, secret)
}
