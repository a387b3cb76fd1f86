package hashicorpwal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nextData is where the next bytes at or after offset are that were ever
// written: what is only preallocated is skipped. ok is false where there are
// none. A file system that does not know answers with offset itself.
func nextData(f *os.File, offset int64) (next int64, ok bool) {
	next, err := unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, false
	}
	if err != nil {
		return offset, true
	}
	return next, true
}
