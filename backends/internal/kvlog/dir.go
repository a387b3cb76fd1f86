package kvlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SyncFiles forces to disk what the files of dir hold, and their names. Engines
// are opened after it: a process that was killed leaves in the page cache what it
// wrote and did not sync, the engine would read it back, and raft would count on
// it although a power cut could still take it away.
func SyncFiles(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Type().IsRegular() {
			if err := SyncPath(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return SyncPath(dir)
}

// SyncPath forces a file or the names in a directory to disk.
func SyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
