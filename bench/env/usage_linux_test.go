package env

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestProcIO(t *testing.T) {
	m := write(t, map[string]string{"proc/self/io": "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n"})
	io, err := m.procIO()
	if err != nil || io != (IO{ReadChars: 1, WriteChars: 2, ReadCalls: 3, WriteCalls: 4, ReadBytes: 5, WriteBytes: 6, CancelledBytes: 7}) {
		t.Errorf("%+v, %v", io, err)
	}
	if d := io.Sub(IO{1, 1, 1, 1, 1, 1, 1}); d != (IO{0, 1, 2, 3, 4, 5, 6}) {
		t.Errorf("difference %+v", d)
	}
	if _, err := (tree{t.TempDir()}).procIO(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no file: %v", err)
	}
}

// TestProcIOCounts what this process writes.
func TestProcIOCounts(t *testing.T) {
	const size = 1 << 20
	before, err := ProcIO()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "f"), make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	after, err := ProcIO()
	if err != nil {
		t.Fatal(err)
	}
	if d := after.Sub(before); d.WriteChars < size || d.WriteCalls < 1 {
		t.Errorf("1 MiB written: %+v", d)
	}
}

// TestDeviceWritten reads the counter of the device that a folder is on.
func TestDeviceWritten(t *testing.T) {
	m := write(t, map[string]string{
		"proc/self/mountinfo":      "1 1 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:30 / /none rw - tmpfs tmpfs rw\n",
		"sys/dev/block/254:0/stat": " 1 2 3 4 5 6 7000 8 9 10 11\n",
	})
	if n, err := m.deviceWritten(t.TempDir()); err != nil || n != 7000*512 {
		t.Errorf("%d, %v", n, err)
	}
	for name, files := range map[string]map[string]string{
		"no block device": {"proc/self/mountinfo": "1 1 0:30 / / rw - tmpfs tmpfs rw\n"},
		"no counter":      {"proc/self/mountinfo": "1 1 254:0 / / rw - ext4 /dev/vda rw\n"},
		"no mounts":       {},
	} {
		m := write(t, files)
		if n, err := m.deviceWritten(t.TempDir()); !errors.Is(err, ErrUnsupported) || n != 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

func TestRSS(t *testing.T) {
	m := write(t, map[string]string{"proc/self/status": "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"})
	if got, err := m.rss(); err != nil || got != (Memory{Now: 1 << 20, Peak: 2 << 20}) {
		t.Errorf("%+v, %v", got, err)
	}
	live, err := RSS()
	if err != nil || live.Now == 0 || live.Peak < live.Now {
		t.Errorf("%+v, %v", live, err)
	}
	if err := ResetPeakRSS(); err != nil {
		t.Error(err)
	}
}

func TestCPUTime(t *testing.T) {
	before, err := CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		after, err := CPUTime()
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a minute of work takes no CPU time")
		}
	}
}

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	empty, err := DiskUsage(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "data")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, filepath.Join(dir, "second-name")); err != nil {
		t.Fatal(err)
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sparse.Truncate(1<<30), sparse.Close()); err != nil {
		t.Fatal(err)
	}
	// A file system may allocate only when it writes back.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	used, err := DiskUsage(dir)
	if grown := used - empty; err != nil || grown < 1<<20 || grown > 1<<20+1<<18 {
		t.Errorf("1 MiB with two names and a sparse file: %d more, %v", grown, err)
	}
	if _, err := DiskUsage(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestDeviceNumber(t *testing.T) {
	if n := deviceNumber("/dev/null"); n != "" {
		t.Errorf("a character device: %q", n)
	}
	if n := deviceNumber("tmpfs"); n != "" {
		t.Errorf("no file: %q", n)
	}
	if _, err := os.Stat("/dev/loop1"); err == nil {
		if n := deviceNumber("/dev/loop1"); n != "7:1" {
			t.Errorf("/dev/loop1 is %q", n)
		}
	}
}
