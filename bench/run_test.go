package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// quick is a suite of a second.
func quick(t *testing.T, bs ...backends.Backend) Spec {
	return Spec{
		Backends: bs, Dir: filepath.Join(t.TempDir(), "data"), Load: Closed(8),
		Warmup: 50 * time.Millisecond, Duration: 200 * time.Millisecond, Repeats: 1, CalibrateFor: 100 * time.Millisecond,
	}
}

func mustRun(t *testing.T, spec Spec) *result.Result {
	t.Helper()
	res, err := Run(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(spec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is still there")
	}
	return res
}

func TestRunEveryLoopAndLoad(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"ready":      func(*Spec) {},
		"async":      func(s *Spec) { s.Loop = node.LoopAsync },
		"raft.Node":  func(s *Spec) { s.Raft = node.RaftNode },
		"node async": func(s *Spec) { s.Raft, s.Loop = node.RaftNode, node.LoopAsync },
		"one node":   func(s *Spec) { s.Nodes = 1 },
		"five":       func(s *Spec) { s.Nodes = 5 },
		"open":       func(s *Spec) { s.Load = Open(500) },
		"poisson":    func(s *Spec) { s.Load = Load{Kind: LoadPoisson, Rate: 500} },
		"reads":      func(s *Spec) { s.ReadRatio = 0.5 },
		"range":      func(s *Spec) { s.ValueSize, s.ValueSizeMax = 16, 4096 },
		"snapshots":  func(s *Spec) { s.SnapshotEntries, s.CatchUpEntries = 200, 50 },
		"codec":      func(s *Spec) { s.Transport = "mem+codec" },
		"one by one": func(s *Spec) {
			s.Batch = 1
		},
		"install": func(s *Spec) { s.Workload.Kind, s.StateSizes = WorkloadSnapshot, []int64{1 << 20} },
	} {
		t.Run(name, func(t *testing.T) {
			spec := quick(t, raw.Backend, mem.Backend)
			spec.Ops = 200 // however long they take
			change(&spec)
			res := mustRun(t, spec)
			if len(res.Runs) != 2 {
				t.Fatalf("%d runs", len(res.Runs))
			}
			for _, r := range res.Runs {
				if r.Verified == nil || !r.Verified.OK || r.Verified.Acked == 0 || r.Verified.Acked < r.Ops-r.Reads.Count {
					t.Errorf("%s: %d operations, verified %+v", r.Backend, r.Ops, r.Verified)
				}
				if spec.Workload.Kind != WorkloadSnapshot && (r.Ops == 0 || r.Response.Count == 0 || r.Errors > 0 && r.LeaderChanges == 0 || r.Save.Count == 0) {
					t.Errorf("%s: %d operations, %d responses, %d errors, %d saves", r.Backend, r.Ops, r.Response.Count, r.Errors, r.Save.Count)
				}
				if chosen := r.Chosen["io"] != "" && r.Chosen["sync"] != ""; spec.Workload.Kind != WorkloadSnapshot && chosen != (r.Backend == "raw") {
					t.Errorf("%s: chose %q", r.Backend, r.Chosen)
				}
				if (r.Snapshot != nil) != (r.Nodes >= 3) {
					t.Errorf("%s: snapshot %+v with %d nodes", r.Backend, r.Snapshot, r.Nodes)
				}
				if r.Snapshot != nil && (r.Snapshot.HashOK == nil || !*r.Snapshot.HashOK) {
					t.Errorf("%s: the restored state is not the leader's", r.Backend)
				}
			}
		})
	}
}

// slowRelease is raw with a Release that takes at least releaseTime.
func slowRelease() backends.Backend {
	b, open := raw.Backend, raw.Backend.Open
	b.Open = func(o backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(o)
		return releaseSlowly{s}, st, err
	}
	return b
}

const releaseTime = 200 * time.Millisecond

type releaseSlowly struct{ backends.Storage }

func (s releaseSlowly) Release(snap *raftpb.Snapshot) error {
	time.Sleep(releaseTime) // the thing under test: a storage that takes its time
	return s.Storage.Release(snap)
}

// TestReleaseIsTimed: the Release of an install counts, though the state machine has
// restored long before it ends.
func TestReleaseIsTimed(t *testing.T) {
	for _, loop := range []node.LoopKind{node.LoopReady, node.LoopAsync} {
		spec := quick(t, slowRelease())
		spec.Ops, spec.Loop = 200, loop
		for _, r := range mustRun(t, spec).Runs {
			if r.Snapshot == nil || r.Snapshot.Release < releaseTime {
				t.Errorf("%s: %+v, want a release of %v", loop, r.Snapshot, releaseTime)
			}
		}
	}
}

// forgetful is raw with an Open that hands out less, or other, than is there.
func forgetful(name string, change func(*backends.State)) backends.Backend {
	b := raw.Backend
	b.Name = name
	open := b.Open
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(opts)
		if err == nil && !st.Empty() {
			change(&st)
		}
		return s, st, err
	}
	return b
}

// TestLost: whatever a store got wrong, the run says so.
func TestLost(t *testing.T) {
	for name, tc := range map[string]struct {
		change      func(*backends.State)
		lost, wrong bool
		snapshots   bool
	}{
		"shorter": {change: func(st *backends.State) { st.Entries = st.Entries[:len(st.Entries)-5] }, lost: true},
		"payload": {change: func(st *backends.State) {
			last := proto.Clone(st.Entries[len(st.Entries)-1]).(*raftpb.Entry)
			last.Data[len(last.Data)-1] ^= 1
			st.Entries[len(st.Entries)-1] = last
		}, wrong: true},
		"term": {change: func(st *backends.State) { st.Entries[len(st.Entries)-1].Term = proto.Uint64(99) }, wrong: true},
		"snapshot value": {snapshots: true, wrong: true, change: func(st *backends.State) {
			// The last byte of the last value; what follows is the checksum.
			data := append([]byte(nil), st.Snapshot.GetData()...)
			body := data[:len(data)-4]
			body[len(body)-1] ^= 1
			sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
			st.Snapshot.Data = binary.LittleEndian.AppendUint32(body, sum)
		}},
		"snapshot gone": {snapshots: true, lost: true, change: func(st *backends.State) {
			st.Snapshot.Data, _ = node.NewKV(1).Snapshot()()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := quick(t, forgetful("forgetful", tc.change))
			spec.NoSnapshots, spec.Ops = true, 300 // enough to lose, however long they take
			if tc.snapshots {
				spec.SnapshotEntries, spec.CatchUpEntries = 100, 10
			}
			res := mustRun(t, spec)
			v := res.Runs[0].Verified
			if v == nil || v.OK || (v.Lost > 0) != tc.lost && !tc.snapshots || (v.Wrong > 0) != tc.wrong && !tc.snapshots || v.Detail == "" {
				t.Errorf("verified %+v", v)
			}
			if !Lost(res) {
				t.Error("the result does not say that something was lost")
			}
		})
	}
}

// TestStorageFails: a Save that fails ends the run with the error.
func TestStorageFails(t *testing.T) {
	b := mem.Backend
	b.Name = "failing"
	open := b.Open
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(opts)
		return &failingStorage{Storage: s, dir: opts.Dir}, st, err
	}
	spec := quick(t, b)
	spec.Nodes, spec.Ops = 1, 1<<40
	res, err := Run(context.Background(), spec)
	if err == nil || !strings.Contains(err.Error(), "disk on fire") || !strings.Contains(err.Error(), "node 1") {
		t.Errorf("error is %v", err)
	}
	if len(res.Runs) != 1 || res.Runs[0].Error == "" || res.Runs[0].Throughput != 0 {
		t.Errorf("a failed run should be in the result, without figures: %+v", res.Runs)
	}
}

type failingStorage struct {
	backends.Storage
	dir   string
	saves int
}

func (s *failingStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	if s.saves++; s.saves > 20 {
		return errors.New("write " + s.dir + ": disk on fire")
	}
	return s.Storage.Save(hs, ents)
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	spec := quick(t, mem.Backend)
	spec.Repeats = 10_000
	spec.Progress = func(p Progress) {
		if p.Phase == "done" && p.Order == 3 {
			cancel()
		}
	}
	res, err := Run(ctx, spec)
	if !errors.Is(err, context.Canceled) || len(res.Runs) != 3 || !res.Interrupted {
		t.Errorf("error %v, %d runs, interrupted %v", err, len(res.Runs), res.Interrupted)
	}
	if _, err := os.Stat(spec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is still there")
	}
}

// TestPlan: a block holds every backend once; the order depends on seed and block
// alone.
func TestPlan(t *testing.T) {
	var bs []backends.Backend
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		b := mem.Backend
		b.Name = name
		bs = append(bs, b)
	}
	order := func(seed int64, block int) string {
		spec := Spec{Backends: bs, Seed: seed}
		if err := spec.Fill(); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, one := range spec.plan(block) {
			names = append(names, one.Backend.Name)
		}
		return strings.Join(names, "")
	}
	if first, again := order(1, 1), order(1, 1); len(first) != 7 || first != again {
		t.Errorf("block 1 is %s, then %s", first, again)
	}
	if order(1, 1) == order(1, 2) && order(1, 2) == order(1, 3) || order(1, 1) == order(2, 1) && order(1, 2) == order(2, 2) {
		t.Errorf("orders do not vary: %s %s %s, %s", order(1, 1), order(1, 2), order(1, 3), order(2, 1))
	}
}

// TestLaps: each lap of a block holds every backend once, in an order of its own;
// the runs have names of their own, and say which lap they are.
func TestLaps(t *testing.T) {
	spec := suiteOf(t, Closed(8), "a", "b", "c")
	spec.Repeats, spec.Laps, spec.RunOne = 2, 4, simulated(map[string]float64{"a": 5000, "b": 300, "c": 50}, 0)
	res := mustRun(t, spec)
	if len(res.Runs) != 2*4*3 || res.Planned != len(res.Runs) {
		t.Fatalf("%d runs, %d planned", len(res.Runs), res.Planned)
	}
	ids, orders := map[string]bool{}, map[string]bool{}
	for i := 0; i < len(res.Runs); i += 3 {
		var names []string
		for _, r := range res.Runs[i : i+3] {
			names = append(names, r.Backend)
			if ids[r.ID] || r.Block != 1+i/12 || r.Lap != 1+i/3%4 {
				t.Errorf("run %d is %s in lap %d of block %d", i, r.ID, r.Lap, r.Block)
			}
			ids[r.ID] = true
		}
		orders[strings.Join(names, "")] = true
		if slices.Sort(names); strings.Join(names, "") != "abc" {
			t.Errorf("a lap of %v", names)
		}
	}
	if len(orders) < 2 {
		t.Errorf("every lap has the order %v", orders)
	}
	spec = suiteOf(t, Load{Kind: LoadCurve}, "a")
	spec.Laps = 2
	var bad *UsageError
	if err := spec.Fill(); !errors.As(err, &bad) {
		t.Errorf("laps of a curve: %v", err)
	}
}

func TestSteady(t *testing.T) {
	for _, tc := range []struct {
		windows []float64
		want    bool
	}{
		{[]float64{100, 100, 100, 100, 100}, true},
		{[]float64{95, 105, 95, 105, 100}, true},
		{[]float64{100, 100, 130, 100, 100}, false},        // range
		{[]float64{92, 96, 100, 104, 108}, false},          // drift
		{[]float64{0, 0, 0, 0, 0}, false},                  // nothing was done
		{[]float64{100, 100, 100, 100}, false},             // too few
		{[]float64{1e-9, 1e-9, 1e-9, 1e-9, 1e-9}, true},    // slow, and steady
		{[]float64{118, 100, 100, 100, 99}, false},         // drift by its first window
		{[]float64{100, 119, 100, 100, 100}, true},         // a bump in the middle
		{[]float64{100, 100, 100, 100, 121.5}, false},      // range
		{[]float64{1000, 900, 1000, 1100, 1000}, true},     // exactly within
		{[]float64{1000, 890, 1000, 1100, 1000}, false},    // just beyond
		{[]float64{1.04, 1.02, 1.0, 0.98, 0.96}, true},     // drift of 8 %
		{[]float64{1.06, 1.03, 1.0, 0.97, 0.94}, false},    // drift of 12 %
		{[]float64{50, 100, 100, 100, 100}, false},         // a slow start
		{[]float64{100, 100, 100, 100, 0}, false},          // it stopped
		{[]float64{1e6, 1e6, 1e6, 1e6, 1e6 + 1}, true},     // large
		{[]float64{100, 110, 100, 110, 100}, true},         // alternates
		{[]float64{100, 100, 100, 100, 100, 100}, true},    // more windows
		{[]float64{110, 105, 100, 105, 110}, true},         // no drift, small range
		{[]float64{100, 120.5, 100, 100, 100.5}, true},     // range of 19.6 % of the mean
		{[]float64{100, 125, 100, 100, 100}, false},        // range of 23.8 %
		{[]float64{97.5, 98.75, 100, 101.25, 102.5}, true}, // drift of 5 %
	} {
		if got := steady(tc.windows); got != tc.want {
			t.Errorf("%v: steady is %v", tc.windows, got)
		}
	}
}

func TestJournal(t *testing.T) {
	var j journal
	j.add(5, 2, 50)
	j.add(6, 2, 60)
	j.add(6, 2, 99) // noted before
	j.add(9, 3, 90) // 7 and 8 were not seen
	for i := uint64(10); i < 10+3*journalChunk; i++ {
		j.add(i, 4, i*10)
	}
	var got []uint64
	terms := map[uint64]uint64{}
	j.each(func(index, term, id uint64) {
		got = append(got, index)
		terms[index] = term
		if id != index*10 {
			t.Fatalf("index %d has id %d", index, id)
		}
	})
	if len(got) != 3+3*journalChunk || terms[6] != 2 || terms[9] != 3 || terms[10] != 4 {
		t.Errorf("%d entries, terms %d %d %d", len(got), terms[6], terms[9], terms[10])
	}
	e := j.expect(9, func(id uint64) uint64 { return id % 20 })
	if e.count != 3 || e.last[10] != 90 || e.last[0] != 60 {
		t.Errorf("expectation %+v", e)
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"closed:64", "open:0.5", "poisson:2000", "curve", "search:p99<10ms", "search:p999<1s"} {
		l, err := ParseLoad(s)
		if err != nil || l.String() != s {
			t.Errorf("%q is read as %q, %v", s, l, err)
		}
	}
	for _, s := range []string{"", "closed", "closed:", "closed:0", "closed:-1", "closed:1e9", "open:0", "open:inf", "open:nan", "poisson:x",
		"curve:5", "search:", "search:p99", "search:p98<1ms", "search:p99<0s", "search:p99<-1s", "search:p99>1ms", "CLOSED:1"} {
		if l, err := ParseLoad(s); err == nil {
			t.Errorf("%q is read as %+v", s, l)
		}
	}
	for _, s := range []string{"propose", "snapshot", "restart", "age", "trace:/some/dir"} {
		if w, err := ParseWorkload(s); err != nil || w.String() != s {
			t.Errorf("%q is read as %q, %v", s, w, err)
		}
	}
}

// TestFullDisk: a file system without room is told before any work starts.
func TestFullDisk(t *testing.T) {
	dir := loopDevice(t, "16M")
	_, err := OpenWorkspace(filepath.Join(dir, "data"), 3, false)
	if err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("error is %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 1 { // lost+found
		t.Errorf("left behind: %v", entries)
	}
	if err := exec.Command("mount", "-o", "remount,ro", dir).Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWorkspace(filepath.Join(dir, "data"), 3, false); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only: error is %v", err)
	}
}

// TestDiskFillsUp: a disk that fills up during a run ends it with the file and the
// reason, and no trace.
func TestDiskFillsUp(t *testing.T) {
	dir := loopDevice(t, "600M")
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	spec := quick(t, raw.Backend)
	spec.Dir, spec.NoCalibrate, spec.Duration = filepath.Join(dir, "data"), true, time.Hour
	spec.Progress = func(p Progress) {
		if p.Phase == "measure" {
			_, _ = ballast.Write(make([]byte, 100<<20)) // until there is no room
		}
	}
	res, err := Run(context.Background(), spec)
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "node") {
		t.Errorf("error is %v", err)
	}
	if len(res.Runs) != 1 || res.Runs[0].Error == "" {
		t.Errorf("runs %+v", res.Runs)
	}
}

// loopDevice mounts a small ext4 file system.
func loopDevice(t *testing.T, size string) string {
	t.Helper()
	img, dir := filepath.Join(t.TempDir(), "disk.img"), t.TempDir()
	for _, cmd := range [][]string{
		{"truncate", "-s", size, img}, {"mkfs.ext4", "-q", "-m", "0", img}, {"mount", "-o", "loop", img, dir},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: %v: %s", cmd, err, out)
			}
			t.Skipf("%v: %v: %s (needs root and a loop device)", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// TestSpans: what the loop overtakes is still found.
func TestSpans(t *testing.T) {
	var s spans
	s.begin(1, 10, 1)
	s.finish(2)
	s.begin(11, 20, 3) // still running
	found := map[uint64]time.Duration{}
	s.consume(5, 15, func(from, to uint64, sp span) {
		for i := from; i <= to; i++ {
			found[i] = sp.start
		}
	})
	if len(found) != 11 || found[5] != 1 || found[15] != 3 {
		t.Errorf("found %v", found)
	}
	s.finish(4)
	s.consume(16, 20, func(_, _ uint64, sp span) {
		if sp.end != 4 {
			t.Errorf("the end of a span that was consumed in part is lost: %+v", sp)
		}
	})
	if len(s.items) != 0 {
		t.Errorf("kept %v", s.items)
	}
}
