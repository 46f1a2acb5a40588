//go:build !linux

package childprocess

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

func isolate(*exec.Cmd, syscall.Signal) {}

func killGroup(p *os.Process) error {
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// RunAs does nothing here: only the Linux build changes users.
func RunAs(*exec.Cmd, uint32, uint32) {}
