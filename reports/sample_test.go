package reports

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// engine is what the synthetic results know about a backend. The figures follow
// those that a real disk gave: Save p50 of one 1 KiB entry, and throughput of
// three nodes at 64 clients.
type engine struct {
	name   string
	params map[string]string
	save   float64 // µs
	ops    float64
	amp    float64
	none   bool
}

var engines = []engine{
	{name: "etcd-wal", save: 140, ops: 26500, amp: 1.1},
	{name: "bbolt", save: 305, ops: 9400, amp: 8.3},
	{name: "badger", save: 236, ops: 14100, amp: 2.2},
	{name: "pebble", save: 212, ops: 19600, amp: 2.6},
	{name: "raw", save: 131, ops: 29800, amp: 1},
	{name: "mem", save: 0.9, ops: 121000, amp: 0, none: true},
	{name: "hashicorp-wal", save: 138, ops: 26300, amp: 1.2},
	{name: "bbolt", params: map[string]string{"freelist": "array"}, save: 322, ops: 9100, amp: 8.4},
	{name: "bbolt", params: map[string]string{"freelist": "array", "nofreelistsync": "true"}, save: 280, ops: 10100, amp: 6.1},
	{name: "badger", params: map[string]string{"valuethreshold": "64KiB"}, save: 244, ops: 13800, amp: 2.1},
	{name: "pebble", params: map[string]string{"memtable": "64MiB"}, save: 209, ops: 20200, amp: 2.1},
	{name: "pebble", params: map[string]string{"bytespersync": "512KiB", "memtable": "64MiB"}, save: 215, ops: 20000, amp: 2.2},
	{name: "etcd-wal", params: map[string]string{"segment": "16MiB"}, save: 143, ops: 26100, amp: 1.1},
	{name: "a-strangers-log-structured-engine", save: 171, ops: 22100, amp: 1.7},
}

// sampleSpec describes a synthetic suite.
type sampleSpec struct {
	engines []engine
	blocks  int
	seconds int
	seed    uint64
	load    result.Load
}

func defaultSample() sampleSpec {
	return sampleSpec{engines: engines[:6], blocks: 10, seconds: 6, seed: 1, load: result.Load{Kind: "closed", Clients: 64}}
}

// kept makes a value at its first use and keeps it for the tests that come later.
type kept[V any] struct{ made sync.Map }

func (k *kept[V]) get(key string, build func() V) V {
	type entry struct {
		sync.Mutex
		done  bool
		value V
	}
	e, _ := k.made.LoadOrStore(key, new(entry))
	at := e.(*entry)
	at.Lock()
	defer at.Unlock() // also where build ends the test
	if !at.done {
		at.value, at.done = build(), true
	}
	return at.value
}

// results are what keptResult has made.
var results kept[*result.Result]

// keptResult is a copy of a result that is made only once: to draw histograms and to
// compare runs takes longer than most of what tests look at, under the race detector
// above all. A test may change its copy.
func keptResult(key string, build func() *result.Result) *result.Result {
	r := results.get(key, build)
	own(reflect.ValueOf(&r).Elem())
	return r
}

// own gives v a copy of all that it points to.
func own(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			to := reflect.New(v.Type().Elem())
			to.Elem().Set(v.Elem())
			v.Set(to)
			own(to.Elem())
		}
	case reflect.Map:
		if !v.IsNil() {
			to := reflect.MakeMapWithSize(v.Type(), v.Len())
			for key, value := range v.Seq2() {
				one := reflect.New(value.Type()).Elem()
				one.Set(value)
				own(one)
				to.SetMapIndex(key, one)
			}
			v.Set(to)
		}
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		to := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(to, v)
		v.Set(to)
		if refers(v.Type().Elem()) {
			for i := range to.Len() {
				own(to.Index(i))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && refers(f.Type()) {
				own(f)
			}
		}
	}
}

// referring is what refers has found: it is asked for every field of every run.
var referring sync.Map // reflect.Type → bool

// refers reports whether values of a type point to something that can be changed.
func refers(t reflect.Type) bool {
	if known, ok := referring.Load(t); ok {
		return known.(bool)
	}
	out := false
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		out = true
	case reflect.Struct:
		for i := range t.NumField() {
			out = out || t.Field(i).IsExported() && refers(t.Field(i).Type)
		}
	}
	referring.Store(t, out)
	return out
}

// sample is a result as bench would write it, with compare.
func sample(t testing.TB, spec sampleSpec) *result.Result {
	t.Helper()
	return keptResult(fmt.Sprintf("%+v", spec), func() *result.Result { return makeSample(t, spec) })
}

func makeSample(t testing.TB, spec sampleSpec) *result.Result {
	t.Helper()
	rng := rand.New(rand.NewPCG(spec.seed, 7))
	start := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	r := &result.Result{
		Schema: result.Schema, ID: "20260314T092653Z-5f3a", Started: start,
		Ended:   start.Add(time.Duration(spec.blocks*len(spec.engines)*8) * time.Second),
		Command: []string{"raftbench", "run", "--backends", "etcd-wal,bbolt,badger,pebble,raw,mem", "--load", "closed:64", "--repeats", fmt.Sprint(spec.blocks)},
		Seed:    1, Planned: spec.blocks * len(spec.engines),
		Env: sampleEnv(),
	}
	order := 0
	for b := 1; b <= spec.blocks; b++ {
		drift := 1 + 0.03*math.Sin(float64(b)) // the disk breathes
		at := "between"
		if b == 1 {
			at = "before"
		}
		r.Calibration = append(r.Calibration, sampleCalibration(rng, at, b, drift)...)
		for _, i := range rng.Perm(len(spec.engines)) {
			order++
			r.Runs = append(r.Runs, sampleRun(t, rng, spec, spec.engines[i], b, order, drift))
		}
	}
	r.Calibration = append(r.Calibration, sampleCalibration(rng, "after", spec.blocks+1, 1.01)...)
	compareSample(t, r)
	return r
}

// compareSample fills in the comparisons against the first engine, as bench does.
func compareSample(t testing.TB, r *result.Result) {
	t.Helper()
	var err error
	if r.Comparisons, err = stats.Compare(r.Runs, stats.Name(&result.Run{Backend: "etcd-wal"}), stats.Options{Seed: r.Seed}); err != nil {
		t.Fatal(err)
	}
}

func sampleEnv() result.Env {
	no := false
	half, psi := 0.02, 1.5
	return result.Env{
		Hostname: "bench-1", OS: "linux", Arch: "amd64", Kernel: "6.12.9", CPU: "AMD EPYC 7B13", Cores: 2, CPUScheduling: "SCHED_OTHER",
		MemoryBytes: 24 << 30, Virtualization: "kvm", Go: "go1.26.8", GOMAXPROCS: 2, GOGC: "100",
		Version: "v1.0.0", Commit: "0123456789abcdef", Modules: map[string]string{
			"go.etcd.io/raft/v3": "v3.7.0", "go.etcd.io/etcd/server/v3": "v3.7.3", "go.etcd.io/bbolt": "v1.5.0",
			"github.com/dgraph-io/badger/v4": "v4.9.6", "github.com/cockroachdb/pebble/v2": "v2.1.7",
		},
		Dir: "/data/raftbench", FileSystem: "ext4", MountOptions: "rw,relatime", Device: "nvme0n1", Model: "SAMSUNG MZVL2512",
		Rotational: &no, Scheduler: "none", WriteCache: "write back", FreeBytes: 180 << 30,
		Before: &result.Pressure{Load1: 0.3, IOSome10: &psi, StealShare: &half}, After: &result.Pressure{Load1: 2.9, IOSome10: &psi, StealShare: &half},
	}
}

// spread multiplies v by a lognormal factor of the given relative width.
func spread(rng *rand.Rand, v, width float64) float64 { return v * math.Exp(width*rng.NormFloat64()) }

func micros(us float64) time.Duration { return time.Duration(us * 1000) }

// latencies draws a skewed distribution around p50 (µs) and encodes it.
func latencies(t testing.TB, rng *rand.Rand, p50 float64, tail float64, n int64) result.Latency {
	t.Helper()
	h := hdrhistogram.New(1, int64(time.Minute), 3)
	const draws = 3000
	var sum float64
	for range draws {
		v := p50 * math.Exp(0.25*rng.NormFloat64())
		if rng.Float64() < 0.02 {
			v *= 1 + tail*rng.ExpFloat64()
		}
		sum += v
		if err := h.RecordValues(max(int64(v*1000), 1), max(n/draws, 1)); err != nil {
			t.Fatal(err)
		}
	}
	enc, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	q := func(p float64) time.Duration { return time.Duration(h.ValueAtPercentile(p)) }
	// The histogram's own Mean and Max walk all of it.
	return result.Latency{Count: h.TotalCount(), Mean: micros(sum / draws), P50: q(50), P90: q(90), P99: q(99), P999: q(99.9),
		Max: q(100), Encoded: string(enc)}
}

func sampleCalibration(rng *rand.Rand, at string, block int, drift float64) []result.Calibration {
	var out []result.Calibration
	for _, c := range []struct {
		kind  string
		bytes int
		us    float64
	}{
		{"overwrite+fdatasync", 2300, 131}, {"overwrite+fdatasync", 4096, 132}, {"overwrite+fdatasync", 65536, 171}, {"overwrite+fdatasync", 1 << 20, 720},
		{"append+fdatasync", 2300, 190}, {"append+fsync", 2300, 201}, {"overwrite+dsync", 2300, 134},
	} {
		p50 := spread(rng, c.us, 0.01) * drift
		l := result.Latency{Count: 2000, Mean: micros(p50 * 1.1), P50: micros(p50), P90: micros(p50 * 1.3), P99: micros(p50 * 2.4), P999: micros(p50 * 6), Max: micros(p50 * 14)}
		cal := result.Calibration{At: at, Block: block, Kind: c.kind, Bytes: c.bytes, Latency: l, IOPS: 1e6 / p50, BytesPerSecond: float64(c.bytes) * 1e6 / p50}
		out = append(out, cal)
	}
	return out
}

func sampleRun(t testing.TB, rng *rand.Rand, spec sampleSpec, e engine, block, order int, drift float64) result.Run {
	t.Helper()
	ops := spread(rng, e.ops/drift, 0.012)
	if spec.load.Rate > 0 {
		ops = min(ops, spec.load.Rate)
	}
	seconds := spec.seconds - 1
	n := int64(ops * float64(seconds))
	service := 64 / ops * 1e6
	if spec.load.Rate > 0 {
		service = 3 * e.save * (1 + ops/e.ops)
	}
	per := 1 + 14*e.ops/30000*rng.Float64()*0.1 + 12*min(e.ops/30000, 1)
	fsyncs, alloc, cpu := 3/per, 40.0, 2e6/ops*1000
	run := result.Run{
		ID: fmt.Sprintf("%03d-%s", block, labelOf(e.name, e.params)), Block: block, Order: order,
		Started: time.Date(2026, 3, 14, 9, 27, 0, 0, time.UTC).Add(time.Duration(order*8) * time.Second),
		Backend: e.name, Params: e.params, Durability: "synced", Transport: "mem", Loop: "ready", Nodes: 3, GOMAXPROCS: 5, Batch: 512,
		Workload: "propose", Load: spec.load, ValueBytes: 1024, Ops: n, Elapsed: time.Duration(seconds) * time.Second, Throughput: ops,
		EntriesPerSave: &per, AllocsPerOp: &alloc, CPUPerOp: &cpu,
		Verified: &result.Verified{OK: true, Acked: n},
		Windows:  []float64{ops * .98, ops * 1.01, ops, ops * 1.02, ops},
	}
	run.Service = latencies(t, rng, service, 3, n)
	run.Response = run.Service
	if spec.load.Kind != "closed" {
		run.Response = latencies(t, rng, service*1.04, 6, n)
		run.Lag = latencies(t, rng, 12, 4, n)
	}
	if e.none {
		run.Durability = "none"
	} else {
		run.Save = latencies(t, rng, spread(rng, e.save*1.9*drift, 0.01), 5, n/int64(per))
		run.SaveBytes = per * 1100
		run.SaveFloor = spread(rng, e.save/131, 0.01)
		run.FsyncsPerOp = &fsyncs
		run.Fsync = &result.Fsync{Latency: latencies(t, rng, e.save*1.5*drift, 5, n/int64(per)), Source: "kernel", Calls: map[string]int64{"fdatasync": n / 4}}
		written, disk := int64(float64(n)*3400*e.amp), n*1200
		amp := e.amp
		run.WriteAmp, run.Bytes = &amp, &result.Bytes{Logical: n * 3400, Written: &written, Disk: &disk}
	}
	mean := float64(run.Service.Mean)
	run.Stages = &result.Stages{Queue: time.Duration(mean * .35), Save: time.Duration(mean * .3), Replicate: time.Duration(mean * .31), Apply: time.Duration(mean * .04)}
	sampleSeries(rng, &run, spec.seconds, service)
	sampleSnapshot(rng, &run, e)
	rss := int64((90<<20 + e.save*3e5) * (1 + 0.02*math.Sin(float64(order))))
	run.RSS = &rss
	return run
}

func sampleSeries(rng *rand.Rand, run *result.Run, seconds int, service float64) {
	for s := range seconds {
		k := spread(rng, 1, 0.04)
		p50 := service / k
		p := result.Point{T: time.Duration(s) * time.Second, Ops: int64(run.Throughput * k), Warmup: s == 0,
			P50: micros(p50), P99: micros(p50 * spread(rng, 2.6, 0.1)), Max: micros(p50 * 6)}
		if run.Load.Kind == "closed" {
			p.P99 = max(p.P99, p.P50)
		}
		b := make([]int64, int(math.Log2(p50*4))+2)
		for i := range b {
			d := math.Log2(p50) + 0.5 - float64(i)
			b[i] = int64(float64(p.Ops) * math.Exp(-d*d*1.4) * 0.5)
		}
		p.Buckets = b
		run.Series = append(run.Series, p)
	}
	run.Events = []result.Event{{T: 3200 * time.Millisecond, Node: 1, Kind: "snapshot"}, {T: 3300 * time.Millisecond, Node: 2, Kind: "gc", Text: "paused for 1.2 ms"},
		{T: 4100 * time.Millisecond, Node: 3, Kind: "cut", Text: "from 1 and 2"}, {T: 5 * time.Second, Node: 3, Kind: "heal"}, {T: 5100 * time.Millisecond, Kind: "phase_of_the_moon"}}
}

func sampleSnapshot(rng *rand.Rand, run *result.Run, e engine) {
	ok := true
	size := int64(4 << 20)
	us := spread(rng, 2600+e.save*9, 0.05)
	run.Snapshot = &result.Snapshot{Bytes: size, Create: micros(us * .2), Transfer: micros(us * .1), Save: micros(us * .4), Restore: micros(us * .2), Release: micros(us * .05), Install: micros(us), HashOK: &ok}
	run.Snapshots = []result.Snapshot{*run.Snapshot}
	run.Restart = &result.Restart{Open: micros(spread(rng, 900+e.save*20, 0.06)), Entries: 90_000, Bytes: 96 << 20}
}

// addCurve adds a load curve of every backend to a result.
func addCurve(t testing.TB, r *result.Result) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 3))
	first := map[string]result.Run{}
	for _, run := range r.Runs {
		if _, ok := first[run.ID[4:]]; !ok {
			first[run.ID[4:]] = run
		}
	}
	for _, name := range sortedKeys(first) {
		base := first[name]
		top := base.Throughput * 1.6
		for b := 1; b <= 3; b++ {
			for _, share := range []float64{0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1, 1.1} {
				run := base
				rate := top * share
				run.ID, run.Block, run.Order = fmt.Sprintf("%s-%g", base.ID, share), b, len(r.Runs)+1
				run.Load = result.Load{Kind: "open", Rate: rate, Point: fmt.Sprintf("%g%%", 100*share), Share: share, SLO: "p99<10ms"}
				run.Throughput = min(rate, top*0.99)
				p50 := spread(rng, 400/(1.15-min(share, 1.05)), 0.03)
				run.Response = result.Latency{Count: int64(5 * rate), P50: micros(p50), P90: micros(2 * p50), P99: micros(4 * p50), P999: micros(9 * p50), Max: micros(20 * p50)}
				run.Series, run.Stages, run.Snapshot, run.Snapshots, run.Restart = nil, nil, nil, nil, nil
				r.Runs = append(r.Runs, run)
			}
		}
	}
}

// addSnapshots adds installs of several state sizes, addRestarts opens of several
// log sizes.
func addSnapshots(r *result.Result) {
	addSizes(r, "snapshot", func(run *result.Run, size int64, us float64) {
		ok := true
		run.Snapshot = &result.Snapshot{Bytes: size + 4321, Create: micros(us * .2), Transfer: micros(us * .1), Save: micros(us * .4), Restore: micros(us * .2),
			Release: micros(us * .05), Install: micros(us), HashOK: &ok, ForegroundP99: micros(us / 3)}
		run.Snapshots = []result.Snapshot{*run.Snapshot, *run.Snapshot}
	})
}

func addRestarts(r *result.Result) {
	for _, killed := range []bool{false, true} {
		addSizes(r, "restart", func(run *result.Run, size int64, us float64) {
			run.Load, run.ID = result.Load{}, run.ID+map[bool]string{true: "-killed"}[killed]
			run.Restart = &result.Restart{Open: micros(us / 2), Ready: micros(us), Entries: size / 1024, Bytes: size * 11 / 10, Killed: killed}
			rss := int64(us * 900)
			run.RSS = &rss
		})
	}
}

// addSearches adds, for three blocks, a search of every backend; the last backend
// finds no rate in its last one.
func addSearches(r *result.Result) {
	rng := rand.New(rand.NewPCG(5, 5))
	bases := baseRuns(r)
	for b := 1; b <= 3; b++ {
		for i, base := range bases {
			limit := spread(rng, base.Throughput/2, 0.05)
			none := b == 3 && i == len(bases)-1
			step := 0
			add := func(rate float64, missed, point string) {
				step++
				run := base
				run.ID, run.Block, run.Order = fmt.Sprintf("%03d-%s-search-%d", b, labelOf(base.Backend, base.Params), step), b, len(r.Runs)+1
				run.Load = result.Load{Kind: "open", Rate: rate, Point: point, SLO: "p99<10ms", Step: step, Missed: missed}
				if run.Load.Point == "" {
					run.Load.Point = fmt.Sprintf("search step %d", step)
				}
				p50 := 400 / (1.2 - min(rate/limit, 1.1))
				run.Throughput = min(rate, limit*1.05)
				run.Response = result.Latency{Count: int64(5 * rate), P50: micros(p50), P90: micros(2 * p50), P99: micros(4 * p50), P999: micros(9 * p50), Max: micros(20 * p50)}
				run.Series, run.Stages, run.Snapshot, run.Snapshots, run.Restart, run.Events, run.Windows = nil, nil, nil, nil, nil, nil, nil
				run.Flags = nil
				if missed != "" {
					run.Flags = []string{"generator_limited"}
				}
				r.Runs = append(r.Runs, run)
			}
			found := result.Search{Backend: base.Backend, Params: base.Params, Block: b, SLO: "p99<10ms"}
			rate := 1000.0
			for ; rate < limit && !none; rate *= 2 {
				add(rate, "", "")
			}
			add(rate, "p99 was 31ms", "")
			add(rate, "91.2 % of the offered rate was achieved", "")
			if !none {
				found.Rate = math.Round(limit * 0.97)
				for range 3 {
					add(found.Rate, "", confirmedPoint)
				}
			}
			found.Steps = step
			r.Searches = append(r.Searches, found)
		}
	}
}

// addAge adds two runs of the workload age of every backend: bbolt ages.
func addAge(t testing.TB, r *result.Result) {
	t.Helper()
	rng := rand.New(rand.NewPCG(6, 6))
	for b := 1; b <= 2; b++ {
		for _, base := range baseRuns(r) {
			run := base
			run.ID, run.Block, run.Order, run.Workload = fmt.Sprintf("%03d-%s-age", b, labelOf(base.Backend, base.Params)), b, len(r.Runs)+1, "age"
			run.Series, run.Events, run.Windows, run.Snapshot, run.Snapshots, run.Restart = nil, nil, nil, nil, nil, nil
			first, last := stats.Side{Label: "first"}, stats.Side{Label: "last"}
			for n := 1; n <= 20; n++ {
				worn := 1.0
				if base.Backend == "bbolt" {
					worn = 1 + float64(n)/25
				}
				p50 := spread(rng, float64(base.Save.P50)/1000, 0.02) * worn
				c := result.Cycle{Cycle: n, Ops: spread(rng, base.Throughput, 0.03) / worn}
				one := result.Run{Block: n, Backend: run.Backend, Params: run.Params, Durability: run.Durability}
				if base.Durability != "none" {
					c.Save = result.Latency{Count: 4000, Mean: micros(p50), P50: micros(p50), P90: micros(1.5 * p50), P99: micros(4 * p50), P999: micros(9 * p50), Max: micros(30 * p50)}
					c.Disk = int64(spread(rng, 200<<20, 0.01) * worn)
					one.Save, one.Bytes = c.Save, &result.Bytes{Disk: &c.Disk}
				}
				run.Cycles = append(run.Cycles, c)
				if n <= 6 {
					first.Runs = append(first.Runs, one)
				} else if n > 14 {
					last.Runs = append(last.Runs, one)
				}
			}
			if base.Durability != "none" {
				var err error
				if run.Aging, err = stats.CompareSuites(first, last, stats.Options{Seed: 1, Metrics: []string{"save.p50", "save.p99", "bytes.disk"}}); err != nil {
					t.Fatal(err)
				}
			}
			r.Runs = append(r.Runs, run)
		}
	}
}

// addTrace adds runs that replay a WAL.
func addTrace(r *result.Result) {
	sizes := []int64{17, 96, 120, 155, 240, 310, 512, 1024, 2048, 8192, 1 << 20}
	for b := 1; b <= 2; b++ {
		for i, base := range baseRuns(r) {
			run := base
			run.ID, run.Block, run.Order, run.Workload = fmt.Sprintf("%03d-%s-trace", b, labelOf(base.Backend, base.Params)), b, len(r.Runs)+1, "trace"
			run.Load = result.Load{Kind: "trace"}
			run.ValueSize = "17-1048576"
			replayed := slices.Clone(sizes)
			replayed[5] += int64(i)
			run.Trace = &result.Trace{Dir: "/var/lib/etcd/member/wal", Entries: 120_000, Batches: 30_211, Deciles: sizes, Replayed: replayed, WorstGap: float64(i) / 310}
			r.Runs = append(r.Runs, run)
		}
	}
}

// baseRuns are the runs of the first block of the workload propose.
func baseRuns(r *result.Result) []result.Run {
	var out []result.Run
	for _, run := range r.Runs {
		if run.Block == 1 && run.Load.Point == "" && run.Workload == "propose" {
			out = append(out, run)
		}
	}
	return out
}

func addSizes(r *result.Result, workload string, fill func(run *result.Run, size int64, us float64)) {
	rng := rand.New(rand.NewPCG(4, uint64(len(workload))))
	block1 := baseRuns(r)
	for b := 1; b <= 6; b++ {
		for _, base := range block1 {
			for _, size := range []int64{16 << 20, 64 << 20, 256 << 20} {
				run := result.Run{ID: fmt.Sprintf("%03d-%s-%s-%d", b, labelOf(base.Backend, base.Params), workload, size), Block: b, Order: len(r.Runs) + 1, Backend: base.Backend,
					Params: base.Params, Durability: base.Durability, Transport: base.Transport, Loop: base.Loop, Nodes: 3, GOMAXPROCS: base.GOMAXPROCS, Batch: base.Batch, Workload: workload,
					Load: result.Load{Kind: "closed", Clients: 8}, ValueBytes: 1024, StateBytes: size, Verified: &result.Verified{OK: true, Acked: size / 1024}}
				fill(&run, size, spread(rng, float64(size)/200*(1+1e3/base.Throughput*20), 0.06))
				r.Runs = append(r.Runs, run)
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
