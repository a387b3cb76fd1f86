//go:build linux

package fusefs_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/fusefs"
	"github.com/raftbench/raftbench/backends/powercut/internal/oracle"
)

// handsEnv makes this test binary the process that touches the mount: the one
// that serves a mount must not map its files.
const handsEnv = "RAFTBENCH_FUSEFS_HANDS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(handsEnv); dir != "" {
		work(dir)
		os.Exit(0)
	}
	// Each check of rapid mounts a disk some times; -rapid.checks says otherwise.
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// work does the operations that come as JSON lines, and answers each with one.
func work(dir string) {
	in := json.NewDecoder(os.Stdin)
	for {
		var op oracle.Op
		if err := in.Decode(&op); err != nil {
			return
		}
		answer := ""
		if err := do(dir, op); err != nil {
			answer = err.Error()
		}
		fmt.Printf("%q\n", answer)
	}
}

func do(dir string, op oracle.Op) error {
	path, to := filepath.Join(dir, op.Path), filepath.Join(dir, op.To)
	data := bytes.Repeat([]byte{op.Fill}, op.Len)
	switch op.Kind {
	case "create":
		return onFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, func(*os.File) error { return nil })
	case "link":
		return os.Link(path, to)
	case "rename":
		return os.Rename(path, to)
	case "unlink":
		return os.Remove(path)
	case "truncate":
		return os.Truncate(path, op.Off)
	case "fsync", "fsyncdir":
		return onFile(path, os.O_RDONLY, (*os.File).Sync)
	case "fdatasync":
		return onFile(path, os.O_RDWR, func(f *os.File) error { return unix.Fdatasync(int(f.Fd())) })
	case "mmap", "overwrite":
		return onFile(path, os.O_RDWR, func(f *os.File) error { return doMmap(f, op, data) })
	case "append":
		return onFile(path, os.O_WRONLY|os.O_APPEND|dsync(op, unix.O_SYNC), func(f *os.File) error {
			_, err := f.Write(data)
			return err
		})
	case "write":
		return onFile(path, os.O_WRONLY|dsync(op, unix.O_DSYNC), func(f *os.File) error {
			_, err := f.WriteAt(data, op.Off)
			return err
		})
	case "fail-sync": // reports whether fsync failed, and the second one did not
		return onFile(path, os.O_RDWR, func(f *os.File) error {
			if _, err := f.Write([]byte("x")); err != nil {
				return err
			}
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				return fmt.Errorf("first fsync: %v", err)
			}
			return f.Sync()
		})
	case "read":
		return onFile(path, os.O_RDONLY, func(f *os.File) error {
			_, err := io.ReadAll(f)
			return err
		})
	case "allocate":
		return onFile(path, os.O_RDWR, func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), 0, 0, op.Off)
		})
	case "lock":
		return doLock(path)
	}
	return fmt.Errorf("unknown operation %q", op.Kind)
}

func dsync(op oracle.Op, flag int) int {
	if op.Synced {
		return flag
	}
	return 0
}

func onFile(path string, flags int, f func(*os.File) error) error {
	file, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	if err := f(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

func doMmap(f *os.File, op oracle.Op, data []byte) error {
	start := op.Off / disk.PageSize * disk.PageSize
	m, err := unix.Mmap(int(f.Fd()), start, int(op.Off-start)+len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[op.Off-start:], data)
	if op.Synced {
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return err
		}
	}
	return unix.Munmap(m)
}

// doLock reports whether flock excludes another open file of this process.
func doLock(path string) error {
	return onFile(path, os.O_RDWR, func(f *os.File) error {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		return onFile(path, os.O_RDWR, func(g *os.File) error {
			if err := unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
				return fmt.Errorf("a second lock: %v", err)
			}
			return nil
		})
	})
}

// hands is the process that touches the mount.
type hands struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

type tester interface {
	Helper()
	Fatalf(string, ...any)
}

func requireFUSE(t *testing.T) {
	t.Helper()
	if err := fusefs.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must be able to mount: %v", err)
		}
		t.Skip(err)
	}
}

func newHands(t tester, dir string) *hands {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	h := &hands{cmd: exec.Command(self)}
	h.cmd.Env = append(os.Environ(), handsEnv+"="+dir)
	h.cmd.Stderr = os.Stderr
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatalf("%v", err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	return h
}

func (h *hands) do(op oracle.Op) error {
	line, err := json.Marshal(op)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(h.in, "%s\n", line); err != nil {
		return err
	}
	answer, err := h.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the process with the hands is gone: %w", err)
	}
	if answer = strings.Trim(answer, "\"\n"); answer != "" {
		return errors.New(answer)
	}
	return nil
}

func (h *hands) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

func mount(t tester, dir string, opts fusefs.Options) *fusefs.FS {
	t.Helper()
	fs, err := fusefs.Mount(dir, opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return fs
}

func unmount(t tester, fs *fusefs.FS) {
	t.Helper()
	if _, err := fs.Unmount(); err != nil {
		t.Fatalf("%v", err)
	}
}

func newDisk(t tester, mode disk.Mode) *disk.Disk {
	t.Helper()
	d := disk.New(mode)
	if _, errno := d.Mkdir(d.Root(), "sub", 0o755); errno != 0 {
		t.Fatalf("mkdir: %v", errno)
	}
	d.SyncAll()
	return d
}

// TestAgainstOracle runs random system calls through the kernel, mappings
// included, and cuts the power, generation after generation.
func TestAgainstOracle(t *testing.T) {
	requireFUSE(t)
	for _, mode := range []disk.Mode{disk.Strict, disk.Ordered} {
		t.Run(string(mode), func(t *testing.T) {
			dir := t.TempDir()
			rapid.Check(t, func(t *rapid.T) {
				d := newDisk(t, mode)
				o := oracle.New(mode)
				o.SplitWrites = true
				for range rapid.IntRange(1, 3).Draw(t, "generations") {
					d = liveAndDie(t, d, o, dir)
					if err := o.Check(oracle.Files(d)); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func liveAndDie(t *rapid.T, d *disk.Disk, o *oracle.Oracle, dir string) *disk.Disk {
	fs := mount(t, dir, fusefs.Options{Disk: d})
	defer unmount(t, fs)
	h := newHands(t, dir)
	defer h.kill()
	for range rapid.IntRange(1, 40).Draw(t, "ops") {
		op, ok := o.Next(t, oracle.Kinds)
		if !ok {
			continue
		}
		if err := h.do(op); err != nil {
			t.Fatalf("%+v: %v", op, err)
		}
		o.Done(op)
	}
	fs.Kill()
	h.kill() // what it left in mappings must not reach the disk any more
	return fs.Cut(rapid.Int64().Draw(t, "seed"))
}

// TestUnsyncedIsLost: what a kind of write leaves without a sync is lost by some
// seed, and with one by none.
func TestUnsyncedIsLost(t *testing.T) {
	requireFUSE(t)
	for _, kind := range []string{"write", "append", "mmap"} {
		for _, synced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", kind, synced), func(t *testing.T) {
				dir := t.TempDir()
				d := newDisk(t, disk.Strict)
				n, _ := d.Create(d.Root(), "a", 0o644)
				d.Write(n, 0, make([]byte, 3*disk.PageSize))
				d.SyncAll()
				fs := mount(t, dir, fusefs.Options{Disk: d})
				h := newHands(t, dir)
				op := oracle.Op{Kind: kind, Path: "a", Off: 1000, Len: 5000, Fill: 'x', Synced: synced}
				if err := h.do(op); err != nil {
					t.Fatal(err)
				}
				fs.Kill()
				h.kill()
				lost := 0
				for seed := range int64(64) {
					c := oracle.Files(fs.Cut(seed))["a"].Content
					if bytes.Count(c, []byte("x")) != 5000 {
						lost++
					}
				}
				unmount(t, fs)
				if (lost > 0) == synced {
					t.Errorf("synced: %t, and %d of 64 seeds lost it", synced, lost)
				}
			})
		}
	}
}

// TestDeadDeviceDiscards: pages of a mapping that the kernel writes back after
// the device died never arrive.
func TestDeadDeviceDiscards(t *testing.T) {
	requireFUSE(t)
	dir := t.TempDir()
	d := newDisk(t, disk.Strict)
	n, _ := d.Create(d.Root(), "a", 0o644)
	d.Write(n, 0, make([]byte, disk.PageSize))
	d.SyncAll()
	fs := mount(t, dir, fusefs.Options{Disk: d})
	h := newHands(t, dir)
	defer h.kill()
	if err := h.do(oracle.Op{Kind: "read", Path: "a"}); err != nil {
		t.Fatal(err)
	}
	fs.Cut(1)
	for _, kind := range []string{"write", "mmap"} {
		op := oracle.Op{Kind: kind, Path: "a", Len: 10, Fill: 'x', Synced: true}
		if err := h.do(op); err == nil || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("%s on a dead device: %v", kind, err)
		}
	}
	h.kill()
	unmount(t, fs)
	if bytes.ContainsRune(n.Content(), 'x') {
		t.Error("a write arrived after the device died")
	}
}

// TestTrigger: the device dies inside the operation that was asked for, and the
// one that waits for it gets no answer until Release.
func TestTrigger(t *testing.T) {
	requireFUSE(t)
	dir := t.TempDir()
	fs := mount(t, dir, fusefs.Options{Disk: newDisk(t, disk.Strict)})
	fs.Arm(fusefs.Trigger{Op: fusefs.OpRename, N: 1, Then: 1})
	h := newHands(t, dir)
	defer h.kill()
	for _, op := range []oracle.Op{
		{Kind: "create", Path: "a"}, {Kind: "write", Path: "a", Len: 10, Fill: 'x'}, {Kind: "rename", Path: "a", To: "b"},
	} {
		if err := h.do(op); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan error, 1)
	go func() { answered <- h.do(oracle.Op{Kind: "fsync", Path: "b"}) }()
	select {
	case <-fs.Died():
	case <-time.After(2 * time.Minute):
		t.Fatal("the device is alive")
	}
	select {
	case err := <-answered:
		t.Fatalf("an answer from a dead device: %v", err)
	default:
	}
	fs.Release()
	if err := <-answered; err == nil {
		t.Error("no error from a dead device")
	}
	var trace strings.Builder
	fs.Trace(&trace)
	if !strings.Contains(trace.String(), "fsync     b  <- power cut inside") {
		t.Errorf("the trace does not show the cut:\n%s", trace.String())
	}
	h.kill()
	unmount(t, fs)
}

func TestFaults(t *testing.T) {
	requireFUSE(t)
	write := oracle.Op{Kind: "write", Path: "a", Len: 10000, Fill: 'x'}
	cases := []struct {
		name  string
		fault fusefs.Fault
		op    oracle.Op
		want  string // in the error; "" is success
	}{
		{"EIO on write", fusefs.Fault{Op: fusefs.OpWrite, Err: syscall.EIO}, write, "input/output error"},
		{"EIO on another file", fusefs.Fault{Op: fusefs.OpWrite, Err: syscall.EIO, Match: func(p string) bool { return p == "b" }}, write, ""},
		{"EIO on the second write", fusefs.Fault{Op: fusefs.OpWrite, Err: syscall.EIO, Skip: 1}, write, ""},
		{"short write, which Go repeats", fusefs.Fault{Op: fusefs.OpWrite, Short: true, Times: 1}, write, ""},
		{"EIO on msync", fusefs.Fault{Op: fusefs.OpFsync, Err: syscall.EIO}, oracle.Op{Kind: "mmap", Path: "a", Len: 10, Fill: 'x', Synced: true}, "input/output error"},
		{"EIO on fsync once", fusefs.Fault{Op: fusefs.OpFsync, Err: syscall.EIO, Times: 1}, oracle.Op{Kind: "fail-sync", Path: "a"}, ""},
		{"EIO on read", fusefs.Fault{Op: fusefs.OpRead, Err: syscall.EIO}, oracle.Op{Kind: "read", Path: "a"}, "input/output error"},
		{"a slow write", fusefs.Fault{Op: fusefs.OpWrite, Delay: 10 * time.Millisecond, Times: 1}, write, ""},
		{"EIO on rename", fusefs.Fault{Op: fusefs.OpRename, Err: syscall.EIO}, oracle.Op{Kind: "rename", Path: "a", To: "b"}, "input/output error"},
		{"locks", fusefs.Fault{Op: fusefs.OpWrite}, oracle.Op{Kind: "lock", Path: "a"}, ""},
		{"preallocation", fusefs.Fault{Op: fusefs.OpWrite}, oracle.Op{Kind: "allocate", Path: "a", Off: 1 << 20}, ""},
		{"preallocation beyond the disk", fusefs.Fault{Op: fusefs.OpWrite}, oracle.Op{Kind: "allocate", Path: "a", Off: 1 << 30}, "no space left"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := newDisk(t, disk.Strict)
			n, _ := d.Create(d.Root(), "a", 0o644)
			d.Write(n, 0, make([]byte, 3*disk.PageSize))
			fs := mount(t, dir, fusefs.Options{Disk: d})
			h := newHands(t, dir)
			fs.Fill(100 << 20)
			fired := fs.Inject(c.fault)
			err := h.do(c.op)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got error %v, want %s", err, c.want)
			}
			if fired() == 0 && c.want != "" && c.fault.Err != 0 {
				t.Error("the fault did not strike")
			}
			fs.Heal()
			if err := h.do(write); err != nil && c.fault.Err != 0 && c.fault.Op != fusefs.OpRename {
				t.Errorf("after Heal: %v", err)
			}
			h.kill()
			unmount(t, fs)
		})
	}
}

// TestMappingOnAFullDisk: what a mapping wrote and the disk has no room for is an
// error of msync, never a silent loss.
func TestMappingOnAFullDisk(t *testing.T) {
	requireFUSE(t)
	dir := t.TempDir()
	d := newDisk(t, disk.Strict)
	n, _ := d.Create(d.Root(), "a", 0o644)
	d.Truncate(n, 8*disk.PageSize)
	d.SyncAll()
	fs := mount(t, dir, fusefs.Options{Disk: d})
	fs.Fill(2 * disk.PageSize)
	h := newHands(t, dir)
	err := h.do(oracle.Op{Kind: "mmap", Path: "a", Len: 8 * disk.PageSize, Fill: 'x', Synced: true})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("msync of 8 pages with room for 2: %v", err)
	}
	h.kill()
	unmount(t, fs)
}
