package childprocess_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/internal/childprocess"
)

// parentEnv makes the test binary play a parent that starts a child and then
// waits to be killed.
const parentEnv = "KEYTRAIL_CHILDPROCESS_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) != "" {
		playParent()
	}
	os.Exit(m.Run())
}

func playParent() {
	child := exec.CommandContext(context.Background(), "sleep", "600")
	p, err := childprocess.Start(child, syscall.SIGKILL)
	if err != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString(strconv.Itoa(p.Pid()) + "\n")
	<-p.Done()
	os.Exit(0)
}

func TestStopAsksFirstAndKillsAfterTheGracePeriod(t *testing.T) {
	t.Parallel()
	t.Run("polite", func(t *testing.T) {
		t.Parallel()
		p, err := childprocess.Start(exec.CommandContext(t.Context(), "sleep", "600"), syscall.SIGKILL)
		require.NoError(t, err)
		require.NoError(t, p.Err(), "still running")
		require.NoError(t, p.Stop(syscall.SIGTERM, time.Minute))
		require.ErrorContains(t, p.Err(), "terminated")
		require.NoError(t, p.Stop(syscall.SIGTERM, time.Minute), "stopping twice does no harm")
	})
	t.Run("deaf", func(t *testing.T) {
		t.Parallel()
		read, write := io.Pipe()
		deaf := exec.CommandContext(t.Context(), "sh", "-c", `trap "" TERM; echo deaf; while :; do sleep 600; done`)
		deaf.Stdout = write
		p, err := childprocess.Start(deaf, syscall.SIGKILL)
		require.NoError(t, err)
		line, err := bufio.NewReader(read).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "deaf\n", line)
		require.NoError(t, p.Stop(syscall.SIGTERM, time.Millisecond))
		require.ErrorContains(t, p.Err(), "killed")
	})
}

func TestStartReportsAMissingProgram(t *testing.T) {
	t.Parallel()
	_, err := childprocess.Start(exec.CommandContext(t.Context(), "/no/such/program"), syscall.SIGKILL)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestChildDiesWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a child that its parent died")
	}
	t.Parallel()
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err)

	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait() // "signal: killed", as asked
	require.Eventually(t, func() bool { return !running(pid) }, 10*time.Second, 10*time.Millisecond)
}

// running is false for a zombie too: where nobody reaps orphans the dead child
// stays in the process table.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, afterName, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(afterName, "Z")
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var tail childprocess.Tail
	for i := range 10_000 {
		_, err := tail.Write([]byte("line " + strconv.Itoa(i) + "\n"))
		require.NoError(t, err)
	}
	require.True(t, strings.HasSuffix(tail.String(), "line 9999\n"))
	require.LessOrEqual(t, len(tail.String()), 16<<10)
}
