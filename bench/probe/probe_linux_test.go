//go:build amd64 || arm64

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start begins a probe, and skips the test where the machine has none; CI must.
func start(t testing.TB, nodes map[int]string) *Probe {
	t.Helper()
	p, err := Start(Options{Nodes: nodes})
	if errors.Is(err, ErrUnavailable) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// nodeDirs makes the directories of nodes 1 to n.
func nodeDirs(t testing.TB, n int) map[int]string {
	t.Helper()
	root := t.TempDir()
	nodes := map[int]string{}
	for i := 1; i <= n; i++ {
		nodes[i] = filepath.Join(root, fmt.Sprintf("node%d", i))
		if err := os.MkdirAll(nodes[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func create(t testing.TB, path ...string) *os.File {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// repeat writes a block and syncs it with the call, n times.
func repeat(t testing.TB, f *os.File, n int, sync func(fd int) error) {
	t.Helper()
	for range n {
		_, err := f.WriteAt([]byte("block"), 0)
		must(t, err)
		must(t, sync(int(f.Fd())))
	}
}

func syncFileRange(fd int) error { return syscall.SyncFileRange(fd, 0, 0, 7) }

func TestCountsAndAttributes(t *testing.T) {
	nodes := nodeDirs(t, 3)
	deep := create(t, nodes[1], "a", "b", "c", "0.wal")
	flat := create(t, nodes[2], "log")
	dir, err := os.Open(nodes[3])
	must(t, err)
	defer dir.Close()
	other := create(t, t.TempDir(), "log")
	p := start(t, nodes)

	repeat(t, deep, 100, syscall.Fdatasync)
	repeat(t, flat, 30, syscall.Fsync)
	repeat(t, flat, 20, syncFileRange)
	for range 10 {
		must(t, syscall.Fsync(int(dir.Fd()))) // the directory itself
	}
	direct, err := os.OpenFile(filepath.Join(nodes[2], "log"), os.O_WRONLY|syscall.O_DSYNC, 0)
	must(t, err)
	defer direct.Close()
	for i := range 15 {
		_, err := direct.WriteAt([]byte("block"), int64(i))
		must(t, err)
	}
	repeat(t, other, 7, syscall.Fdatasync)
	if err := syscall.Fsync(-1); err == nil {
		t.Fatal("fsync of nothing succeeds")
	}

	r, err := p.Stop()
	must(t, err)
	if want := (map[string]int64{"fdatasync": 100, "fsync": 40, "sync_file_range": 20, "write+dsync": 15}); !equal(r.Calls, want) {
		t.Errorf("calls %v, want %v", r.Calls, want)
	}
	if want := (map[string]int64{"fdatasync": 7, "fsync": 1}); !equal(r.Other, want) || r.Unattributed() != 8 {
		t.Errorf("calls on other files %v, want %v", r.Other, want)
	}
	if r.Failed != 1 || r.Dropped != 0 {
		t.Errorf("%d failed, %d dropped, want 1 and 0", r.Failed, r.Dropped)
	}
	for node, want := range map[int]int64{1: 100, 2: 65, 3: 10} {
		if h := r.Nodes[node]; h == nil {
			t.Errorf("node %d: no calls, want %d", node, want)
		} else if h.TotalCount() != want || h.Min() < 1 {
			t.Errorf("node %d: %d calls, the fastest %d ns; want %d calls", node, h.TotalCount(), h.Min(), want)
		}
	}
	if len(r.Nodes) != 3 || r.All.TotalCount() != 175 {
		t.Errorf("%d nodes, %d calls in all", len(r.Nodes), r.All.TotalCount())
	}
	want := []File{{Node: 1, Name: "0.wal", Calls: 100}, {Node: 2, Name: "log", Calls: 65}, {Node: 3, Name: "node3", Calls: 10}}
	if len(r.Files) != len(want) {
		t.Fatalf("files %+v, want %+v", r.Files, want)
	}
	for i, f := range r.Files {
		if f.Node != want[i].Node || f.Name != want[i].Name || f.Calls != want[i].Calls || f.Total <= 0 {
			t.Errorf("file %+v, want %+v", f, want[i])
		}
	}
}

func equal(a, b map[string]int64) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestMsync attributes by address: in the middle of a mapping, in one of several,
// and of memory that has no file. What enters while the runtime changes the address
// space is attributed to nobody; then all of it is done again.
func TestMsync(t *testing.T) {
	const tries = 20
	for try := 1; !msyncs(t, try == tries); try++ {
		t.Logf("try %d of %d: a call was not attributed", try, tries)
	}
}

// msyncs makes 20 calls for node 1, 5 for node 2 and one for nobody, and reports
// whether those of nodes were all attributed, which the last try must be.
func msyncs(t *testing.T, last bool) bool {
	nodes := nodeDirs(t, 2)
	p := start(t, nodes)
	page := os.Getpagesize()
	mapped := func(node, pages int) []byte {
		f := create(t, nodes[node], "vlog")
		must(t, f.Truncate(int64(pages*page)))
		m, err := syscall.Mmap(int(f.Fd()), 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		must(t, err)
		t.Cleanup(func() { must(t, syscall.Munmap(m)) })
		must(t, f.Close()) // a mapping outlives its descriptor
		return m
	}
	msync := func(m []byte) {
		m[0]++
		if _, _, errno := syscall.Syscall(syscall.SYS_MSYNC, uintptr(unsafe.Pointer(&m[0])), uintptr(page), syscall.MS_SYNC); errno != 0 {
			t.Fatal(errno)
		}
	}
	one, two := mapped(1, 8), mapped(2, 4)
	anonymous, err := syscall.Mmap(-1, 0, page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must(t, err)
	defer func() { must(t, syscall.Munmap(anonymous)) }()
	for i := range 20 {
		msync(one[(i%8)*page:])
	}
	for i := range 5 {
		msync(two[(i%4)*page:])
	}
	msync(anonymous)
	r, err := p.Stop()
	must(t, err)
	count := func(node int) int64 {
		if h := r.Nodes[node]; h != nil {
			return h.TotalCount()
		}
		return 0
	}
	all := r.Calls["msync"] == 25 && count(1) == 20 && count(2) == 5
	if r.Calls["msync"]+r.Other["msync"] != 26 || count(1) > 20 || count(2) > 5 || len(r.Nodes) > 2 || last && !all {
		t.Fatalf("calls %v, others %v, %d nodes, files %+v", r.Calls, r.Other, len(r.Nodes), r.Files)
	}
	return all
}

// TestNamesMislead: a descriptor that belonged to another node, an inode number
// that did, a renamed file and one that has no name any more.
func TestNamesMislead(t *testing.T) {
	nodes := nodeDirs(t, 2)
	p := start(t, nodes)
	for node := 1; node <= 2; node++ {
		f := create(t, nodes[node], "log")
		repeat(t, f, 10, syscall.Fdatasync)
		must(t, os.Remove(f.Name()))
		repeat(t, f, 10, syscall.Fdatasync) // unlinked
		must(t, f.Close())                  // descriptor and inode are free for the next
	}
	f := create(t, nodes[1], "moved")
	must(t, os.Rename(f.Name(), filepath.Join(nodes[2], "moved")))
	repeat(t, f, 5, syscall.Fdatasync)
	r, err := p.Stop()
	must(t, err)
	if r.Nodes[1].TotalCount() != 20 || r.Nodes[2].TotalCount() != 25 || r.Unattributed() != 0 {
		t.Errorf("node 1 %d, node 2 %d, other %v, want 20, 25 and none", r.Nodes[1].TotalCount(), r.Nodes[2].TotalCount(), r.Other)
	}
}

// TestReset forgets what began before, and only that.
func TestReset(t *testing.T) {
	nodes := nodeDirs(t, 1)
	f := create(t, nodes[1], "log")
	p := start(t, nodes)
	repeat(t, f, 11, syscall.Fdatasync)
	before, err := p.Report()
	must(t, err)
	p.Reset()
	repeat(t, f, 22, syscall.Fdatasync)
	after, err := p.Report()
	must(t, err)
	repeat(t, f, 3, syscall.Fdatasync)
	last, err := p.Stop()
	must(t, err)
	again, err := p.Stop()
	must(t, err)
	for name, c := range map[string]struct{ got, want int64 }{
		"before": {before.All.TotalCount(), 11}, "after": {after.All.TotalCount(), 22},
		"last": {last.All.TotalCount(), 25}, "again": {again.All.TotalCount(), 25},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d calls, want %d", name, c.got, c.want)
		}
	}
}

// TestInFlight: a call that began before the reset is in no report after it.
func TestInFlight(t *testing.T) {
	p := &Probe{seen: newTally(), from: 1000}
	for _, begin := range []uint64{999, 1000} {
		sample := make([]byte, eventBytes)
		binary.NativeEndian.PutUint64(sample[evStart:], begin)
		binary.NativeEndian.PutUint64(sample[evDuration:], 5000)
		binary.NativeEndian.PutUint32(sample[evCall:], syscall.SYS_FSYNC)
		binary.NativeEndian.PutUint32(sample[evNode:], 2)
		p.count(sample)
	}
	if n := p.seen.calls["fsync"]; n != 1 || p.broken != nil {
		t.Errorf("%d calls, want 1; %v", n, p.broken)
	}
	if p.count(make([]byte, eventBytes-1)); p.broken == nil {
		t.Error("half an event is counted")
	}
}

// TestManyThreads counts what threads do at the same time, exactly.
func TestManyThreads(t *testing.T) {
	nodes := nodeDirs(t, 3)
	p := start(t, nodes)
	const each = 300
	done := make(chan error)
	threads := 0
	for node := range nodes {
		for i := range 4 {
			f := create(t, nodes[node], fmt.Sprint(i))
			threads++
			go func() {
				for range each {
					if err := syscall.Fdatasync(int(f.Fd())); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
	}
	for range threads {
		must(t, <-done)
	}
	r, err := p.Stop()
	must(t, err)
	for node := range nodes {
		if n := r.Nodes[node].TotalCount(); n != 4*each {
			t.Errorf("node %d: %d calls, want %d", node, n, 4*each)
		}
	}
	if r.Dropped != 0 {
		t.Errorf("%d dropped", r.Dropped)
	}
}

// TestTwoProbes at once see the same.
func TestTwoProbes(t *testing.T) {
	nodes := nodeDirs(t, 1)
	a, b := start(t, nodes), start(t, nodes)
	repeat(t, create(t, nodes[1], "log"), 9, syscall.Fdatasync)
	for _, p := range []*Probe{a, b} {
		r, err := p.Stop()
		must(t, err)
		if r.All.TotalCount() != 9 {
			t.Errorf("%d calls, want 9", r.All.TotalCount())
		}
	}
}

func TestNoDirectory(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := Start(Options{Nodes: map[int]string{1: missing}})
	if !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a node without a directory: %v", err)
	}
}

// TestNoRights starts a probe in a process of nobody's.
func TestNoRights(t *testing.T) {
	const child = "RAFTBENCH_PROBE_NOBODY"
	if os.Getenv(child) != "" {
		_, err := Start(Options{})
		fmt.Println("START:", errors.Is(err, ErrUnavailable), err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become nobody")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestNoRights$")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if want := "START: true the kernel's view of syncs is not available: eBPF needs root"; !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s\nwant %q", err, out, want)
	}
}
