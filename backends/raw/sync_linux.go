package raw

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync forces the data of f, and of its metadata what is needed to read
// that data back, to disk.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// fallocate reserves size bytes of blocks for f and makes it at least that long.
func fallocate(f *os.File, size int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != unix.EINTR {
			return err
		}
	}
}
