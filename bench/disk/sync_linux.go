package disk

import (
	"fmt"
	"os"
	"syscall"
)

var kinds = []string{Overwrite, Append, AppendFsync, Dsync, Direct}

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

// newPages returns n bytes that begin at a page of memory, and so at a multiple of
// directBlock; freePages gives them back.
func newPages(n int) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", n, err)
	}
	return b, nil
}

func freePages(b []byte) { _ = syscall.Munmap(b) } // it is a mapping

func openDirect(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|syscall.O_DSYNC|syscall.O_DIRECT, 0)
}
