package history

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo answers every line with itself and returns what has arrived.
func echo(t *testing.T) (addr string, heard func() []string) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	var mu sync.Mutex
	var lines []string
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = c.Close() }()
				for s := bufio.NewScanner(c); s.Scan(); {
					mu.Lock()
					lines = append(lines, s.Text())
					mu.Unlock()
					fmt.Fprintln(c, s.Text())
				}
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		running.Wait()
	})
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, lines...)
	}
}

func dial(t *testing.T, p *Proxy) net.Conn {
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func proxied(t *testing.T) (*Proxy, func() []string) {
	addr, heard := echo(t)
	p, err := NewProxy(addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, heard
}

func ask(c net.Conn, question string) (string, error) {
	if _, err := fmt.Fprintln(c, question); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestProxyCuts(t *testing.T) {
	t.Parallel()
	p, heard := proxied(t)
	c, idle := dial(t, p), dial(t, p)
	answer, err := ask(c, "hello")
	require.NoError(t, err)
	require.Equal(t, "hello\n", answer)
	_, err = ask(idle, "hello")
	require.NoError(t, err)
	p.Cut()
	for _, cut := range []net.Conn{c, idle} {
		_, err = ask(cut, "still there?")
		require.Error(t, err)
	}
	_, err = ask(dial(t, p), "new")
	require.NoError(t, err)
	require.Equal(t, []string{"hello", "hello", "new"}, heard())
}

func TestProxyCutsWithinAnExchange(t *testing.T) {
	t.Parallel()
	p, heard := proxied(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 20 {
		p.CutNext(1, rng)
		p.mu.Lock()
		place := p.cuts[0]
		p.mu.Unlock()
		question := fmt.Sprint("question ", i)
		_, err := ask(dial(t, p), question)
		require.Error(t, err)
		switch place {
		case InTheRequest:
			require.NotContains(t, heard(), question)
		case BeforeTheAnswer:
			require.Contains(t, heard(), question)
		case AfterTheRequest: // who knows
		}
		answer, err := ask(dial(t, p), "again")
		require.NoError(t, err)
		require.Equal(t, "again\n", answer)
	}
}

func TestProxyStalls(t *testing.T) {
	t.Parallel()
	p, _ := proxied(t)
	c := dial(t, p)
	_, err := ask(c, "hello")
	require.NoError(t, err)
	p.Stall()
	answered := make(chan error, 1)
	go func() {
		_, err := ask(c, "late")
		answered <- err
	}()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	require.ErrorIs(t, <-answered, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	p.Resume()
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "late\n", line)
}
