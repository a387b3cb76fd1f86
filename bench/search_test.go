package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/result"
)

// limited is a backend that can save so many entries a second: Save sleeps until
// all that it was ever given would be done at that rate. What a sleep takes too
// long, the next one takes less, so the rate is exact.
func limited(name string, perSecond float64) backends.Backend {
	b := mem.Backend
	open := b.Open
	b.Name, b.Durability = name, backends.Synced
	b.Open = func(o backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(o)
		return &limitedStorage{Storage: s, each: time.Duration(float64(time.Second) / perSecond)}, st, err
	}
	return b
}

type limitedStorage struct {
	backends.Storage
	each time.Duration
	free time.Time
}

func (s *limitedStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	if now := time.Now(); s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(len(ents)) * s.each)
	time.Sleep(time.Until(s.free))
	return s.Storage.Save(hs, ents)
}

// simulated makes runs by arithmetic: up to its capacity a backend takes 1 ms, and
// beyond it falls behind by what it cannot do.
func simulated(capacity map[string]float64, noise float64) func(context.Context, One, func(Progress)) (result.Run, error) {
	rng := rand.New(rand.NewPCG(1, 1))
	return func(_ context.Context, one One, _ func(Progress)) (result.Run, error) {
		run := one.Header()
		top := capacity[one.Backend.Name] * (1 + noise*rng.NormFloat64())
		run.Throughput = top
		run.Response = result.Latency{Count: 10_000, P99: time.Millisecond}
		if one.Load.Rate > 0 {
			run.Throughput = min(top, one.Load.Rate)
			run.Response.P99 += time.Duration(max(one.Load.Rate/top-1, 0) * float64(one.Duration))
		}
		run.Ops, run.Elapsed = int64(run.Throughput*one.Duration.Seconds()), one.Duration
		return run, nil
	}
}

func suiteOf(t *testing.T, load Load, names ...string) Spec {
	t.Helper()
	spec := Spec{Dir: filepath.Join(t.TempDir(), "data"), Load: load, NoCalibrate: true, Repeats: 1}
	for _, name := range names {
		b := mem.Backend
		b.Name, b.Durability = name, backends.Synced
		spec.Backends = append(spec.Backends, b)
	}
	return spec
}

// TestCurve: each backend has its own maximum and every share of it, in an order
// that differs between blocks.
func TestCurve(t *testing.T) {
	capacity := map[string]float64{"a": 10_000, "b": 777}
	spec := suiteOf(t, Load{Kind: LoadCurve}, "a", "b")
	spec.Repeats, spec.RunOne = 3, simulated(capacity, 0)
	res := mustRun(t, spec)
	if want := 2 * 3 * (1 + len(curveShares)); len(res.Runs) != want || res.Planned != want {
		t.Fatalf("%d runs, %d planned, want %d", len(res.Runs), res.Planned, want)
	}
	orders := map[string]bool{}
	for block := 1; block <= 3; block++ {
		for name, top := range capacity {
			var shares []float64
			for i, r := range res.Runs {
				if r.Block != block || r.Backend != name {
					continue
				}
				if r.Order != i+1 {
					t.Errorf("%s is in place %d of the order, and made as number %d", r.ID, r.Order, i+1)
				}
				if r.Load.Point == "max" {
					if len(shares) > 0 || r.Load.Kind != "closed" || r.Load.Clients == 0 {
						t.Errorf("%s comes after %v, load %+v", r.ID, shares, r.Load)
					}
					continue
				}
				if r.Load.Kind != "open" || math.Abs(r.Load.Rate/(top*r.Load.Share)-1) > 0.001 || r.Load.Point != fmt.Sprintf("%.0f%%", 100*r.Load.Share) {
					t.Errorf("%s: load %+v of a maximum of %v", r.ID, r.Load, top)
				}
				shares = append(shares, r.Load.Share)
			}
			orders[fmt.Sprint(shares)] = true
			slices.Sort(shares)
			if !slices.Equal(shares, curveShares) {
				t.Errorf("block %d, %s: shares %v", block, name, shares)
			}
		}
	}
	if len(orders) < 4 || orders[fmt.Sprint(curveShares)] {
		t.Errorf("the shuffled orders are %v", orders)
	}
}

// TestSearch by arithmetic: what is found is at most a step of the bisection
// below the capacity, and never above what 99 % of it allows.
func TestSearch(t *testing.T) {
	for _, tc := range []struct{ capacity, want float64 }{
		{100_000, 100_000}, {3000, 3000}, {1000, 1000}, {1001, 1001}, {10, 10}, {1.5, 1.5}, {987_654, 987_654},
		{0.001, 0}, {1e12, searchHighest},
	} {
		spec := suiteOf(t, Load{Kind: LoadSearch, Metric: "p99", SLO: 10 * time.Millisecond}, "a")
		spec.RunOne = simulated(map[string]float64{"a": tc.capacity}, 0)
		res := mustRun(t, spec)
		if len(res.Searches) != 1 {
			t.Fatalf("capacity %v: searches %v", tc.capacity, res.Searches)
		}
		s := res.Searches[0]
		if s.Rate > tc.want/searchAchieved || s.Rate < tc.want/searchWithin/1.01 {
			t.Errorf("capacity %v: found %v in %d steps", tc.capacity, s.Rate, s.Steps)
		}
		if s.Steps != len(res.Runs) || s.Backend != "a" || s.SLO != "p99<10ms" || s.Block != 1 {
			t.Errorf("capacity %v: %d runs, %+v", tc.capacity, len(res.Runs), s)
		}
		checkSteps(t, res, s)
	}
}

// checkSteps looks at what the runs of one search say.
func checkSteps(t *testing.T, res *result.Result, s result.Search) {
	t.Helper()
	confirmed := 0
	for i, r := range res.Runs {
		if r.Load.Step != i+1 || r.Load.SLO != s.SLO || r.Load.Kind != "open" || r.ID != fmt.Sprintf("001-a-search-%02d", i+1) {
			t.Errorf("run %d: %s, %+v", i, r.ID, r.Load)
		}
		switch {
		case r.Load.Point == "confirmed":
			confirmed++
			if r.Load.Rate != s.Rate || r.Load.Missed != "" {
				t.Errorf("confirmed: %+v, found %v", r.Load, s.Rate)
			}
		case r.Load.Point != fmt.Sprintf("search step %d", i+1):
			t.Errorf("run %d is the point %q", i, r.Load.Point)
		case s.Rate > 0 && r.Load.Rate > s.Rate*searchWithin*1.01 && r.Load.Missed == "" && s.Rate < searchHighest && r.Load.Rate >= 2*s.Rate:
			t.Errorf("rate %v held, and %v was found", r.Load.Rate, s.Rate)
		}
	}
	if want := map[bool]int{true: searchConfirms, false: 0}[s.Rate > 0]; confirmed != want {
		t.Errorf("%d runs are confirmed, want %d", confirmed, want)
	}
}

// TestSearchOfNoise: with capacities that scatter by 3 % from run to run, three
// searches agree within 15 %, and end.
func TestSearchOfNoise(t *testing.T) {
	spec := suiteOf(t, Load{Kind: LoadSearch, Metric: "p99", SLO: 10 * time.Millisecond}, "a")
	spec.Repeats, spec.RunOne = 30, simulated(map[string]float64{"a": 20_000}, 0.03)
	res := mustRun(t, spec)
	var rates []float64
	for _, s := range res.Searches {
		rates = append(rates, s.Rate)
	}
	slices.Sort(rates)
	if len(rates) != 30 || rates[29]/rates[0] > 1.2 || rates[27]/rates[2] > 1.15 || rates[0] < 0.8*20_000 {
		t.Errorf("found %v", rates)
	}
	if len(res.Runs) != res.Planned {
		t.Errorf("%d runs, %d planned", len(res.Runs), res.Planned)
	}
}

func TestMissed(t *testing.T) {
	load := Load{Metric: "p99", SLO: 10 * time.Millisecond}
	good := result.Run{Ops: 9900, Elapsed: 10 * time.Second, Throughput: 990, Load: result.Load{Rate: 1000}, Response: result.Latency{Count: 1, P50: time.Hour, P99: 9 * time.Millisecond}}
	for want, change := range map[string]func(*result.Run){
		"":                            func(*result.Run) {},
		"run failed":                  func(r *result.Run) { r.Error = "disk on fire" },
		"2 operations failed":         func(r *result.Run) { r.Errors = 2 },
		"98.9 % of the offered rate":  func(r *result.Run) { r.Ops, r.Throughput = 9890, 989 },
		"80.0 % of the offered rate":  func(r *result.Run) { r.Ops, r.Elapsed, r.Throughput, r.Load.Rate = 8, time.Second, 8, 10 },
		"p99 was 10ms":                func(r *result.Run) { r.Response.P99 = load.SLO },
		"backlog grew from 10 to 400": func(r *result.Run) { r.Backlog = []int64{10, 50, 100, 200, 400} },
	} {
		r := good
		change(&r)
		if got := missed(&r, load); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%q, want %q", got, want)
		}
	}
	few := good
	few.Ops, few.Elapsed, few.Throughput, few.Load.Rate = 9, time.Second, 9, 10
	if got := missed(&few, load); got != "" {
		t.Errorf("of ten operations one is under way at the end: %q", got)
	}
	for _, steady := range [][]int64{nil, {1, 2, 3, 4}, {10, 12, 14, 16, 20}, {1, 5, 4, 8, 16}, {0, 0, 0, 0, 0}, {9, 7, 5, 3, 1}} {
		if growing(steady) {
			t.Errorf("%v grows", steady)
		}
	}
}

// TestSearchOfStorage finds the rate of a backend that is known by construction,
// by a clock that no machine slows.
func TestSearchOfStorage(t *testing.T) { synctest.Test(t, searchOfStorage) }

func searchOfStorage(t *testing.T) {
	const rate = 500
	spec := quick(t, limited("limited", rate))
	spec.Nodes, spec.NoCalibrate, spec.Duration, spec.timersOnly = 1, true, 400*time.Millisecond, true
	spec.Load = Load{Kind: LoadSearch, Metric: "p50", SLO: 200 * time.Millisecond}
	res := mustRun(t, spec)
	if len(res.Searches) != 1 || res.Searches[0].Rate > rate*1.1 || res.Searches[0].Rate < rate/1.1 {
		t.Errorf("found %+v, want %d", res.Searches, rate)
		for _, r := range res.Runs {
			t.Logf("%+v: %.0f ops/s, p50 %v, backlog %v", r.Load, r.Throughput, r.Response.P50, r.Backlog)
		}
	}
	for _, r := range res.Runs {
		if r.Verified == nil || len(r.Backlog) != gateWindows || r.Snapshot != nil {
			t.Errorf("%s: verified %v, backlog %v, snapshot %v", r.ID, r.Verified, r.Backlog, r.Snapshot)
		}
	}
}

func TestRoundRate(t *testing.T) {
	for in, want := range map[float64]float64{123456: 123500, 1234.56: 1235, 99.994: 99.99, 0.123456: 0.1235, 0: 0, 1e7: 1e7, 3: 3} {
		if got := roundRate(in); got != want {
			t.Errorf("%v is rounded to %v, want %v", in, got, want)
		}
	}
}
