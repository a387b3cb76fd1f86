package dirlock

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
)

func TestSecondLockIsRefused(t *testing.T) {
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, backends.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second lock: got %v, want ErrLocked naming %s", err, dir)
	}
	for range 2 {
		if err := release(); err != nil {
			t.Fatal(err)
		}
	}
	release, err = Lock(dir)
	if err != nil {
		t.Fatalf("lock after release: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func TestMissingDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if _, err := Lock(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want an error that wraps os.ErrNotExist", err)
	}
}

const lockDirEnv = "DIRLOCK_TEST_DIR"

func TestLockHoldsBetweenProcesses(t *testing.T) {
	if dir := os.Getenv(lockDirEnv); dir != "" {
		if _, err := Lock(dir); !errors.Is(err, backends.ErrLocked) {
			t.Fatalf("child: got %v, want ErrLocked", err)
		}
		return
	}
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockHoldsBetweenProcesses$")
	cmd.Env = append(os.Environ(), lockDirEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
}
