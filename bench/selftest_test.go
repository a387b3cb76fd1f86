package bench

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// The self-test asks the whole chain, from Save to the verdict, questions whose
// answers are known. `make selftest` runs it; it takes about three quarters of an hour,
// on the disk of RAFTBENCH_DIR or of the current directory, and in memory.
const (
	selfBlocks   = 10
	selfDuration = 400 * time.Millisecond
	// The comparisons that must find a difference make each block of short laps: see
	// docs/method.md for what they gain over the same time in one run.
	selfLaps, selfLap = 10, 100 * time.Millisecond
	// A/A: so many comparisons of a backend with itself, of which one at most may
	// find a difference.
	selfSame, selfSameWrong = 20, 1
	// Sensitivity: so many comparisons with a backend whose Save takes a tenth
	// longer, of which so many must find it.
	selfSlow, selfSlowFound = 10, 9
	selfSlower              = 1.10
	// What recording may cost: so much of the throughput of mem.
	selfPairs, selfOverhead = 20, 0.03
	// The generator of an open loop must hold this share of the most that mem does in a
	// closed one, with so little lag.
	selfShare, selfLag = 0.60, time.Millisecond
	// On any disk, however it scatters, the interval must cover the truth as often.
	selfCovered = 9
)

// inMemory is a file system without a device.
const inMemory = "/dev/shm"

// selfDisk is the directory whose disk is asked.
func selfDisk() string {
	if dir := os.Getenv("RAFTBENCH_DIR"); dir != "" {
		return dir
	}
	return "."
}

func selfDir(t *testing.T, parent string) string {
	t.Helper()
	if os.Getenv("RAFTBENCH_SELFTEST") == "" {
		t.Skip("make selftest and make harness set RAFTBENCH_SELFTEST; they take three quarters of an hour and two minutes")
	}
	dir, err := os.MkdirTemp(parent, madeUpPrefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// selfBackend is raw without the choice that it makes at Open, and with a segment
// that is soon written, under a name.
func selfBackend(name string) backends.Backend {
	b := raw.Backend.With(map[string]string{"sync": "fdatasync", "segment": "4MiB"})
	b.Name = name
	return b
}

// slowed is a backend whose Save takes longer by a factor. It keeps the processor
// meanwhile: a sleep of some microseconds is never exact.
func slowed(b backends.Backend, factor float64) backends.Backend {
	open := b.Open
	b.Open = func(o backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(o)
		return &slowStorage{Storage: s, extra: factor - 1}, st, err
	}
	return b
}

type slowStorage struct {
	backends.Storage
	extra float64
}

func (s *slowStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	start := time.Now()
	err := s.Storage.Save(hs, ents)
	took := time.Since(start)
	for end := took + time.Duration(float64(took)*s.extra); time.Since(start) < end; {
	}
	return err
}

// selfSuite makes the blocks of all comparisons as one suite and compares them in
// groups of selfBlocks.
func selfSuite(t *testing.T, parent string, spec Spec, comparisons int, metrics []string) [][]result.Comparison {
	t.Helper()
	spec.Dir = filepath.Join(selfDir(t, parent), "data")
	spec.Repeats, spec.NoCalibrate, spec.NoSnapshots = comparisons*selfBlocks, true, true
	res, err := Run(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var tables [][]result.Comparison
	for i := range comparisons {
		var runs []result.Run
		for _, r := range res.Runs {
			if (r.Block-1)/selfBlocks == i {
				runs = append(runs, r)
			}
		}
		base := spec.Backends[0].Label()
		table, err := stats.Compare(runs, base, stats.Options{Seed: int64(i), Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, table)
	}
	return tables
}

// TestSelfSame: the same backend twice under different names, three nodes under
// the default load, every metric that a table compares.
func TestSelfSame(t *testing.T) {
	spec := Spec{Backends: []backends.Backend{selfBackend("one"), selfBackend("two")}, Warmup: selfDuration / 4, Duration: selfDuration}
	wrong, verdicts := 0, 0
	for i, table := range selfSuite(t, selfDisk(), spec, selfSame, nil) {
		bad := false
		for _, c := range table {
			verdicts++
			if c.Verdict == stats.Faster || c.Verdict == stats.Slower {
				bad = true
				t.Logf("comparison %d: %s is %s: %.3f [%.3f, %.3f]", i+1, c.Metric, c.Verdict, c.Ratio, c.Lo, c.Hi)
			}
		}
		if bad {
			wrong++
		}
	}
	t.Logf("A/A: %d of %d tables with a wrong verdict (%d metrics in all)", wrong, selfSame, verdicts)
	if wrong > selfSameWrong {
		t.Errorf("%d of %d comparisons of a backend with itself find a difference; %d may", wrong, selfSame, selfSameWrong)
	}
}

// TestSelfSlow: a Save that takes a tenth longer is found. In memory, where no disk
// scatters; a processor that others share still does, and may hide it.
func TestSelfSlow(t *testing.T) {
	found, _ := selfSlowed(t, inMemory)
	if found < selfSlowFound {
		t.Errorf("10 %% is found in %d of %d comparisons; %d are wanted", found, selfSlow, selfSlowFound)
	}
}

// TestSelfSlowDisk: the same on the disk. How often it is found is told, not asked
// for: it depends on how the disk scatters. That the interval covers the truth does
// not.
func TestSelfSlowDisk(t *testing.T) {
	_, covered := selfSlowed(t, selfDisk())
	if covered < selfCovered {
		t.Errorf("the interval covers the truth in %d of %d comparisons; %d are wanted", covered, selfSlow, selfCovered)
	}
}

// selfMem makes one run on mem, three nodes, and returns it.
func selfMem(t *testing.T, l Load, d time.Duration, off bool) result.Run {
	t.Helper()
	spec := Spec{Backends: []backends.Backend{mem.Backend}, Dir: filepath.Join(selfDir(t, inMemory), "data"), Load: l, Warmup: d / 4, Duration: d,
		Repeats: 1, NoCalibrate: true, NoSnapshots: true, NoRecorders: off}
	return mustRun(t, spec).Runs[0]
}

// TestHarnessOverhead: the throughput of mem with everything recorded against the same
// with nothing recorded, in turns.
func TestHarnessOverhead(t *testing.T) {
	var ratios, costs []float64
	for i := range selfPairs {
		first := i%2 == 0
		a, b := selfMem(t, Closed(256), time.Second, first), selfMem(t, Closed(256), time.Second, !first)
		on, off := a, b
		if first {
			on, off = b, a
		}
		if on.Save.Count == 0 || off.Save.Count > 0 {
			t.Fatalf("%d Saves were recorded, and %d where none should be", on.Save.Count, off.Save.Count)
		}
		ratios = append(ratios, on.Throughput/off.Throughput)
		costs = append(costs, *on.CPUPerOp / *off.CPUPerOp)
		t.Logf("pair %2d: %.0f ops/s recorded, %.0f not; CPU per operation %.0f ns, %.0f not", i+1, on.Throughput, off.Throughput, *on.CPUPerOp, *off.CPUPerOp)
	}
	c := stats.Summarize(costs)
	t.Logf("CPU per operation with the recorders on, of that with them off: %.3f [%.3f, %.3f]", c.Median, c.Lo, c.Hi)
	s := stats.Summarize(ratios)
	t.Logf("throughput with the recorders on, of that with them off: %.3f [%.3f, %.3f]", s.Median, s.Lo, s.Hi)
	if s.Median < 1-selfOverhead {
		t.Errorf("recording costs %.1f %%; %.0f %% are allowed", 100*(1-s.Median), 100*selfOverhead)
	}
}

// machineGaps is the share of the time that the machine takes away from a thread of its
// own on every core, in pieces longer than atLeast, and the longest piece: no generator
// can keep a schedule better than that.
func machineGaps(d, atLeast time.Duration) (share float64, longest time.Duration) {
	var mu sync.Mutex
	var taken time.Duration
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			runtime.LockOSThread() // ends with the goroutine
			var mine, worst time.Duration
			start := time.Now()
			for last := start; last.Sub(start) < d; {
				now := time.Now()
				if gap := now.Sub(last); gap > atLeast {
					mine, worst = mine+gap, max(worst, gap)
				}
				last = now
			}
			mu.Lock()
			taken, longest = taken+mine, max(longest, worst)
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(taken) / float64(d) / float64(runtime.NumCPU()), longest
}

// TestHarnessGenerator: an open loop at a share of what a closed one reaches keeps its
// schedule.
func TestHarnessGenerator(t *testing.T) {
	selfDir(t, inMemory) // skips, unless it was asked for
	share, longest := machineGaps(4*time.Second, selfLag)
	t.Logf("the machine itself stops each core for longer than %v during %.2f %% of the time, for %v at most", selfLag, 100*share, longest)
	var rates, lags, achieved []float64
	for range 5 {
		most := 0.0
		for _, clients := range []int{256, 1024} {
			most = max(most, selfMem(t, Closed(clients), time.Second, false).Throughput)
		}
		r := selfMem(t, Open(roundRate(selfShare*most)), 2*time.Second, false)
		t.Logf("closed %.0f ops/s; open at %.0f: %.0f, lag p50 %v, p99 %v, max %v", most, r.Load.Rate, r.Throughput, r.Lag.P50, r.Lag.P99, r.Lag.Max)
		rates, lags, achieved = append(rates, r.Load.Rate), append(lags, float64(r.Lag.P99)), append(achieved, r.Throughput/r.Load.Rate)
	}
	lag := time.Duration(stats.Median(lags))
	t.Logf("medians: %.0f ops/s offered, %.3f of it achieved, lag p99 %v", stats.Median(rates), stats.Median(achieved), lag)
	if lag >= selfLag || stats.Median(achieved) < searchAchieved {
		t.Errorf("at %.0f %% of the closed loop lag p99 is %v (less than %v is wanted), %.3f of the rate is achieved", 100*selfShare, lag, selfLag, stats.Median(achieved))
	}
}

// selfSlowed compares a backend with one whose Save takes a tenth longer, on one node
// with one client, so that every Save holds one entry and the truth is 1.1 exactly.
// It returns how often that was found with the truth in the interval, and how often
// the truth was in the interval. Both sides are wrapped, so that reading the clock
// costs both.
func selfSlowed(t *testing.T, parent string) (found, covered int) {
	t.Helper()
	base, slow := slowed(selfBackend("base"), 1), slowed(selfBackend("slow"), selfSlower)
	spec := Spec{Backends: []backends.Backend{base, slow}, Nodes: 1, Load: Closed(1), ValueSize: 4 << 10,
		Warmup: selfLap / 2, Duration: selfLap, Laps: selfLaps}
	for i, table := range selfSuite(t, parent, spec, selfSlow, []string{"save.p50"}) {
		c := table[0]
		t.Logf("comparison %2d: %-12s %.3f [%.3f, %.3f], Save %v", i+1, c.Verdict, c.Ratio, c.Lo, c.Hi, time.Duration(c.BaselineMedian))
		covers := c.Lo <= selfSlower && selfSlower <= c.Hi
		if covers {
			covered++
		}
		if c.Verdict == stats.Slower && covers {
			found++
		}
	}
	t.Logf("sensitivity: found with the truth in the interval in %d of %d, interval covers in %d", found, selfSlow, covered)
	return found, covered
}
