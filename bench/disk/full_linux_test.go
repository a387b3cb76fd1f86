package disk

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// mountTmpfs mounts one with the options given and returns its directory.
func mountTmpfs(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("this test mounts a tmpfs, and CI must let it (run as root): %v", err)
		}
		t.Skipf("cannot mount a tmpfs: %v (run as root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	for name, options := range map[string]string{"while preparing": "size=4m", "while growing": "size=24m"} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, 0, options)
			opts := quick()
			opts.Sizes = []int{1 << 20}
			_, err := Calibrate(t.Context(), dir, opts)
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir+"/.raftbench-disk-") {
				t.Errorf("full disk: %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind on a full disk: %v", left)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	dir := mountTmpfs(t, syscall.MS_RDONLY, "")
	if _, err := Calibrate(t.Context(), dir, quick()); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("read-only directory: %v", err)
	}
}
