package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const canReadNoise = true

// tick is the unit of times in /proc: USER_HZ, which is 100 on every architecture that
// Go runs on (proc(5), sysconf(_SC_CLK_TCK)).
const tick = 10 * time.Millisecond

// kernelThreads is the parent of the kernel's own threads, which work for whoever
// writes to the disk.
const kernelThreads = 2

// othersCPU is the processor time that has been used since the machine started, without
// that of this process, of the database server, and of the kernel's threads. Time in
// interrupts is nobody's, and time stolen by the host is others'.
func othersCPU(server int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line)) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, errors.New("/proc/stat is not as expected")
	}
	var total time.Duration
	for _, i := range []int{1, 2, 3, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		total += time.Duration(n) * tick
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	self := os.Getpid()
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		p, err := readProcess(pid)
		if err != nil {
			continue // it has ended
		}
		switch {
		case pid == self:
			total -= p.cpu
		case server != 0 && pid == server:
			// Servers' processes that have ended stand in their parent's account.
			total -= p.cpu + p.childrenCPU
		case server != 0 && p.parent == server, p.parent == kernelThreads:
			total -= p.cpu
		}
	}
	return total, nil
}

type process struct {
	name             string
	parent           int
	cpu, childrenCPU time.Duration
}

// readProcess reads /proc/PID/stat (proc(5)).
func readProcess(pid int) (process, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	fields := strings.Fields(string(raw[end+1:])) // from field 3 on
	if len(fields) < 15 {
		return process{}, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	p := process{name: string(raw[open+1 : end])}
	if p.parent, err = strconv.Atoi(fields[1]); err != nil {
		return process{}, err
	}
	for i, to := range map[int]*time.Duration{11: &p.cpu, 12: &p.cpu, 13: &p.childrenCPU, 14: &p.childrenCPU} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return process{}, err
		}
		*to += time.Duration(n) * tick
	}
	return p, nil
}

// parentOfServer is the process whose children serve the database, given one of them.
func parentOfServer(backend int) (int, bool) {
	p, err := readProcess(backend)
	if err != nil || p.name != "postgres" || p.parent <= 1 {
		return 0, false
	}
	parent, err := readProcess(p.parent)
	if err != nil || parent.name != "postgres" {
		return 0, false
	}
	return p.parent, true
}

// resetPeakRSS makes the kernel forget the peak so far (proc(5), clear_refs).
func resetPeakRSS() {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where it may not, the peak is the process's
}

// peakRSS is in MiB, 0 where it is not known.
func peakRSS() float64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				return 0
			}
			return kib / 1024
		}
	}
	return 0
}
