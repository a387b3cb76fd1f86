package raw

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// noDirectDisk mounts a file system that takes no direct writes.
func noDirectDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("a file system without direct writes cannot be mounted: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func TestNoDirectWrites(t *testing.T) {
	dir := noDirectDisk(t)
	if got, m, err := choose(dir, way{"auto", "auto"}); err != nil || got.io != "buffered" || m.direct != "" {
		t.Errorf("on a disk without direct writes auto became %v by %+v, %v", got, m, err)
	}
	for _, sync := range []string{"auto", "fdatasync"} {
		if _, _, err := choose(dir, way{"direct", sync}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "io=buffered") {
			t.Errorf("io=direct on a disk without direct writes: %v", err)
		}
	}
	// A log that says otherwise came from another disk.
	believe(t, dir, measured{io: "direct", buffered: "dsync", direct: "dsync"})
	must(t, openDir(t, dir, map[string]string{"io": "buffered"}, nil).Close())
	believe(t, dir, measured{})
	s := openDir(t, dir, nil, nil)
	if io := s.Chosen()["io"]; io != "buffered" {
		t.Errorf("on a disk without direct writes a log that was written so chose io=%s", io)
	}
	must(t, s.Close())
}
