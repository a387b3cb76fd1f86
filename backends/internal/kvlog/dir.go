package kvlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
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

// CloseWithin calls the Close of an engine that has failed, and which may hang on
// a lock that the failure left taken. Then the engine keeps what it has until the
// process ends.
func CloseWithin(limit time.Duration, close func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("close after a failure: panic: %v", r)
			}
		}()
		done <- close()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("the engine did not close within %s of a failure; its files stay locked until the process ends", limit)
	}
}
