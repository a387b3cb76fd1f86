package disk

import (
	"os"
	"syscall"
)

var kinds = []string{Overwrite, Append, AppendFsync, Dsync}

func fdatasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

func openDsync(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|syscall.O_DSYNC, 0)
}
