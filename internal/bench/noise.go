package bench

import (
	"context"
	"time"
)

// noisyAbove is how much of a core others may use before a run is called noisy.
const noisyAbove = 0.08

// noise adds up what other processes use while something is measured.
type noise struct {
	// server is the process id of the database server's parent process on this machine,
	// 0 where the database is in this process or on another machine.
	server  int
	unknown string
	others  time.Duration
	wall    time.Duration
}

// newNoise finds out what is to be left out of others' use.
func newNoise(ctx context.Context, db database) *noise {
	n := &noise{}
	if !canReadNoise {
		n.unknown = "this system does not tell what other processes use"
		return n
	}
	n.server, n.unknown = db.server(ctx)
	return n
}

// watch begins to count, until the function that it returns is called.
func (n *noise) watch() (stop func()) {
	if n.unknown != "" {
		return func() {}
	}
	begin := time.Now()
	before, err := othersCPU(n.server)
	return func() {
		after, errAfter := othersCPU(n.server)
		if err != nil || errAfter != nil {
			n.unknown = "the system did not tell what other processes use"
			return
		}
		n.others += max(after-before, 0)
		n.wall += time.Since(begin)
	}
}

func (n *noise) judge() (noisy *bool, cores *float64, unknown string) {
	if n.unknown != "" || n.wall == 0 {
		return nil, nil, n.unknown
	}
	share := round(n.others.Seconds()/n.wall.Seconds(), 3)
	above := share > noisyAbove
	return &above, &share, ""
}
