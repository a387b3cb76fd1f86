package disk

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// mount mounts a file system that is in memory and returns its directory.
func mount(t *testing.T, kind string, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount(kind, dir, kind, flags, options); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("this test mounts a %s, and CI must let it (run as root): %v", kind, err)
		}
		t.Skipf("cannot mount a %s: %v (run as root)", kind, err)
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
			dir := mount(t, "tmpfs", 0, options)
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
	dir := mount(t, "tmpfs", syscall.MS_RDONLY, "")
	if _, err := Calibrate(t.Context(), dir, quick()); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("read-only directory: %v", err)
	}
}

// TestNoDirect: where the file system takes no direct writes (ramfs), their rows are
// absent, unless they were asked for.
func TestNoDirect(t *testing.T) {
	dir := mount(t, "ramfs", 0, "")
	opts := quick()
	opts.Sizes = []int{directBlock}
	rows, err := Calibrate(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if r.Kind != kinds[i] || r.Kind == Direct {
			t.Errorf("row %d is %s", i, r.Kind)
		}
	}
	if len(rows) != len(kinds)-1 {
		t.Errorf("%d rows without direct writes, %d ways in all", len(rows), len(kinds))
	}
	opts.Kinds = []string{Direct}
	if _, err := Calibrate(t.Context(), dir, opts); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), dir) {
		t.Errorf("asked for direct writes where there are none: %v", err)
	}
	opts.Sizes = []int{RecipeBytes}
	if _, err := Calibrate(t.Context(), dir, opts); err == nil || !strings.Contains(err.Error(), "2300") {
		t.Errorf("asked for direct writes of no whole block: %v", err)
	}
}
