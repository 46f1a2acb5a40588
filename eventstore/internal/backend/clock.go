package backend

import (
	"sync"
	"time"
)

// Clock gives recording times: UTC, microseconds, never decreasing, even where the
// machine's clock is set back.
type Clock struct {
	now  func() time.Time
	mu   sync.Mutex
	last time.Time
}

// NewClock wraps now, or the machine's clock where now is nil.
func NewClock(now func() time.Time) *Clock {
	if now == nil {
		now = time.Now
	}
	return &Clock{now: now}
}

// Now is the time of what is being recorded.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := Microseconds(c.now()); t.After(c.last) {
		c.last = t
	}
	return c.last
}
