package snapfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the kernel begin to write a part of a file to disk, without
// waiting for it. It is no sync: without the flags that wait it also leaves the
// error of a write that fails for Sync to tell (sync_file_range(2)).
func startWriteback(f *os.File, from, size int64) error {
	for {
		switch err := unix.SyncFileRange(int(f.Fd()), from, size, unix.SYNC_FILE_RANGE_WRITE); err {
		case nil, unix.ENOSYS: // a sandbox may not have it; Sync does all of it then
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("begin to write it to disk: %w", err)
		}
	}
}
