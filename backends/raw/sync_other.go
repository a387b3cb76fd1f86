//go:build !linux

package raw

import "os"

// fdatasync is the file system's full sync where there is no lesser one.
func fdatasync(f *os.File) error { return f.Sync() }

// fallocate makes f size bytes long; where blocks cannot be reserved, that is
// all that can be done without writing them.
func fallocate(f *os.File, size int64) error { return f.Truncate(size) }
