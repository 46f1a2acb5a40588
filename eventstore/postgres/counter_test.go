package postgres

import (
	"context"
	"net"
	"sync/atomic"
)

// counter counts the messages that leave on the connections it dials.
type counter struct{ writes atomic.Int64 }

func (c *counter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	return countedConn{conn, c}, err
}

type countedConn struct {
	net.Conn
	counter *counter
}

func (c countedConn) Write(b []byte) (int, error) {
	c.counter.writes.Add(1)
	return c.Conn.Write(b)
}
