//go:build !linux

package disk

import (
	"errors"
	"os"
)

// Elsewhere only fsync is what its name says: macOS has no fdatasync that
// reaches the medium, and Windows neither of the others.
var kinds = []string{AppendFsync}

var errNoSuch = errors.New("not on this system")

func fdatasync(f *os.File) error {
	return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: errNoSuch}
}

func openDsync(name string) (*os.File, error) {
	return nil, &os.PathError{Op: "open with O_DSYNC", Path: name, Err: errNoSuch}
}

// Without O_DIRECT it does not matter where memory begins.
func newPages(n int) ([]byte, error) { return make([]byte, n), nil }

func freePages([]byte) {}

func openDirect(name string) (*os.File, error) {
	return nil, &os.PathError{Op: "open with O_DIRECT", Path: name, Err: errNoSuch}
}
