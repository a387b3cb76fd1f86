//go:build !linux

package raw

import "os"

// oDirect is the flag of open that takes writes past the page cache; 0 where there is none.
const oDirect = 0

// fdatasync is the file system's full sync where there is no lesser one.
func fdatasync(f *os.File) error { return f.Sync() }

// fallocate makes f size bytes long; where blocks cannot be reserved, that is
// all that can be done without writing them.
func fallocate(f *os.File, size int64) error { return f.Truncate(size) }

// fileSystemID is not known here.
func fileSystemID(string) (uint64, error) { return 0, nil }

// mapHuge has no huge pages to give here.
func mapHuge(int) (b, mapped []byte) { return nil, nil }

func unmap([]byte) {}
