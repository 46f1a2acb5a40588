package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const dialLimit = 5 * time.Second

// Cutting says where in an exchange a Proxy cuts a connection.
type Cutting int

// The places. In the second the server may or may not have done what it was asked
// for, in the third it has done it and nobody hears of it.
const (
	InTheRequest Cutting = iota
	AfterTheRequest
	BeforeTheAnswer
)

// A Proxy passes TCP connections on to a server, as long as it is not told to do
// otherwise. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	links   map[*link]struct{}
	stalled chan struct{} // closed when it goes on; nil while it is going on
	cuts    []Cutting     // to be made at the next opportunity
}

// A link is a client's connection and the server's.
type link struct {
	client, server net.Conn
	cut            chan struct{}
	once           sync.Once
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.cut)
		for _, c := range []net.Conn{l.client, l.server} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // a reset, as of a machine that has gone
			}
			_ = c.Close()
		}
	})
}

// NewProxy listens on a free port of 127.0.0.1 for connections to target.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("proxy for %s: %w", target, err)
	}
	p := &Proxy{listener: l, target: target, links: make(map[*link]struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.connect(client) })
	}
}

func (p *Proxy) connect(client net.Conn) {
	dialer := net.Dialer{Timeout: dialLimit}
	server, err := dialer.DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		_ = client.Close() // the server is down, and the client is told in the same way
		return
	}
	l := &link{client: client, server: server, cut: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.close()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	p.running.Go(func() { p.pass(l, client, server, true) })
	p.pass(l, server, client, false)
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (p *Proxy) pass(l *link, from, to net.Conn, request bool) {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.forward(l, to, buffer[:n], request) {
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) forward(l *link, to net.Conn, b []byte, request bool) bool {
	stalled, cut, cutting := p.next(request)
	if stalled != nil {
		select {
		case <-stalled:
		case <-l.cut:
			return false
		}
	}
	switch {
	case !cutting:
	case cut == BeforeTheAnswer:
		return false
	case cut == InTheRequest:
		b = b[:len(b)/2]
	}
	_, err := to.Write(b)
	return err == nil && !cutting
}

func (p *Proxy) next(request bool) (stalled chan struct{}, cut Cutting, cutting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cuts) > 0 && (p.cuts[0] == BeforeTheAnswer) != request {
		cut, cutting = p.cuts[0], true
		p.cuts = p.cuts[1:]
	}
	return p.stalled, cut, cutting
}

// Cut cuts all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// CutNext cuts the connection of each of the next n exchanges, at places that rng
// chooses.
func (p *Proxy) CutNext(n int, rng *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range n {
		p.cuts = append(p.cuts, Cutting(rng.IntN(int(BeforeTheAnswer)+1)))
	}
}

// Stall lets nothing pass until Resume; connections stay.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// Resume lets pass what was held up, and everything that follows.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// Close cuts all connections and listens no more.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Resume()
	p.Cut()
	err := p.listener.Close()
	p.running.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the proxy for %s: %w", p.target, err)
	}
	return nil
}
