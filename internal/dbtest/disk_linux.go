package dbtest

import (
	"fmt"
	"syscall"
)

// mountDisk puts an empty file system of a given size, in memory, at a folder.
func mountDisk(dir string, mib int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", mib))
}

// unmountDisk removes it, as soon as the last process has left it.
func unmountDisk(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
