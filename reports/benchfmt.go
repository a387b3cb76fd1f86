package reports

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// benchUnit maps a figure of a run to a unit of the Go benchmark format.
type benchUnit struct {
	unit   string
	better string // "higher", "lower", ""
	get    func(*result.Run) (float64, bool)
}

func unitOf(unit string, m *metric) benchUnit {
	better := map[stats.Better]string{stats.Higher: "higher", stats.Lower: "lower"}[m.Better]
	return benchUnit{unit, better, m.get}
}

// benchUnits are the figures in bench.txt. A unit with "ns" in it is shown by
// benchstat in seconds.
var benchUnits = []benchUnit{
	{"ns/op", "lower", perOp},
	unitOf("ops/s", metricThroughput),
	unitOf("p50-ns/op", metricResponse50),
	unitOf("p99-ns/op", metricResponse99),
	unitOf("p99.9-ns/op", metricResponse999),
	unitOf("service-p99-ns", metricService99),
	unitOf("reads-p99-ns", metricReads99),
	unitOf("save-p50-ns", metricSave50),
	unitOf("save-p99-ns", metricSave99),
	unitOf("save-x-floor", metricFloor),
	unitOf("fsync-p50-ns", metricFsync50),
	unitOf("fsync-p99-ns", metricFsync99),
	unitOf("fsyncs/op", metricFsyncs),
	unitOf("entries/save", metricEntries),
	unitOf("write-amp", metricWriteAmp),
	unitOf("space-amp", metricSpaceAmp),
	unitOf("cpu-ns/op", metricCPU),
	unitOf("allocs/op", metricAllocs),
	unitOf("install-ns", metricInstall),
	unitOf("open-ns", metricOpen),
}

// perOp is the time that one operation took of the run, as testing.B counts it:
// elapsed ÷ operations. Of an install and of a restart it is their time.
func perOp(r *result.Run) (float64, bool) {
	switch {
	case r.Workload == "snapshot":
		return metricInstall.get(r)
	case r.Workload == "restart":
		return metricOpen.get(r)
	case r.Ops > 0 && r.Elapsed > 0:
		return float64(r.Elapsed) / float64(r.Ops), true
	}
	return 0, false
}

// Benchfmt writes every run as a line of the Go benchmark format
// (golang.org/design/14313-benchmark-format), for benchstat. What all runs have
// in common stands above as configuration, what differs is in the names, so
// that `benchstat -col /backend` compares backends. Runs without figures are
// left out.
func Benchfmt(w io.Writer, r *result.Result) error {
	bw := benchfmt.NewWriter(w)
	runs := make([]*result.Run, len(r.Runs))
	for i := range r.Runs {
		runs[i] = &r.Runs[i]
	}
	for _, u := range usedUnits(runs) {
		if u.better == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "Unit %s better=%s\n", u.unit, u.better); err != nil {
			return err
		}
	}
	config, varies := benchConfig(r, runs)
	for _, run := range runs {
		rec := benchResult(run, varies)
		if rec == nil {
			continue
		}
		rec.Config = config
		if err := bw.Write(rec); err != nil {
			return err
		}
	}
	return nil
}

// usedUnits are the units that some run has a figure in.
func usedUnits(runs []*result.Run) []benchUnit {
	var out []benchUnit
	for _, u := range benchUnits {
		if slices.ContainsFunc(runs, func(r *result.Run) bool { v, ok := u.get(r); return ok && quantity.Usable(v) }) {
			out = append(out, u)
		}
	}
	return out
}

// benchKey is a setting that goes into the name of a benchmark where runs
// differ in it, and into the configuration above where they do not.
type benchKey struct {
	name string
	get  func(*result.Run) string
}

var benchKeys = []benchKey{
	{"loop", func(r *result.Run) string { return r.Loop }},
	{"raft", func(r *result.Run) string { return r.Raft }},
	{"load", func(r *result.Run) string { return loadText(r.Load) }},
	{"reads", func(r *result.Run) string { return number(r.ReadRatio) }},
	{"state", func(r *result.Run) string { return number(float64(r.StateBytes)) }},
	{"groups", func(r *result.Run) string { return number(float64(r.Groups)) }},
	{"batch", func(r *result.Run) string { return number(float64(r.Batch)) }},
	{"placement", func(r *result.Run) string { return r.Placement }},
	{"slow-disk", func(r *result.Run) string { return r.SlowDisk }},
	{"values", func(r *result.Run) string { return r.ValueSize }},
	{"snapshot", when(func(r *result.Run) bool { return r.SnapshotMode != "stream" }, func(r *result.Run) string { return r.SnapshotMode })}, // not the default
	{"after", when(func(r *result.Run) bool { return r.Restart != nil && r.Restart.Killed }, func(*result.Run) string { return "kill" })},
	{"faults", when(func(r *result.Run) bool { return r.Faults != nil }, func(r *result.Run) string { return r.Faults.Timeline })},
	// A step of a search has a rate of its own in each block.
	{"rate", when(func(r *result.Run) bool { return r.Load.Step > 0 }, func(r *result.Run) string { return number(r.Load.Rate) })},
}

// when is get of the runs that have something to say, and empty for the others.
func when(has func(*result.Run) bool, get func(*result.Run) string) func(*result.Run) string {
	return func(r *result.Run) string {
		if !has(r) {
			return ""
		}
		return get(r)
	}
}

func number(v float64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// loadText is the load as the command line takes it: "closed:64".
func loadText(l result.Load) string {
	switch {
	case l.Point != "" && l.Share > 0:
		return fmt.Sprintf("%.4g%%", 100*l.Share)
	case l.Point != "":
		return l.Point
	case l.Kind == "closed":
		return fmt.Sprintf("closed:%d", l.Clients)
	}
	return l.Kind + ":" + number(l.Rate)
}

// benchConfig is the configuration that all runs share, and the keys that are
// in the names because runs differ.
func benchConfig(r *result.Result, runs []*result.Run) (config []benchfmt.Config, varies []benchKey) {
	add := func(key, value string) {
		if value = strings.TrimSpace(clean(value)); value != "" {
			config = append(config, benchfmt.Config{Key: key, Value: []byte(value), File: true})
		}
	}
	add("goos", r.Env.OS)
	add("goarch", r.Env.Arch)
	add("pkg", "github.com/raftbench/raftbench/bench")
	add("cpu", r.Env.CPU)
	add("kernel", r.Env.Kernel)
	add("filesystem", r.Env.FileSystem)
	add("device", r.Env.Device)
	keys := slices.Clone(benchKeys)
	for _, name := range settingNames(runs) {
		keys = append(keys, benchKey{strings.ToLower(benchToken(name)), func(r *result.Run) string { return r.Settings[name] }})
	}
	for _, k := range keys {
		seen := map[string]bool{}
		for _, run := range runs {
			seen[k.get(run)] = true
		}
		if len(seen) > 1 {
			varies = append(varies, k)
			continue
		}
		for v := range seen {
			add(k.name, v)
		}
	}
	return config, varies
}

// benchNames are the names of the benchmarks by workload, as in go test -bench.
var benchNames = map[string]string{"": "Propose", "propose": "Propose", "snapshot": "Snapshot", "restart": "Restart", "age": "Age"}

// benchResult is one run as a benchmark line; nil where it has no figure.
func benchResult(r *result.Run, varies []benchKey) *benchfmt.Result {
	base := benchNames[r.Workload]
	if base == "" {
		name, _, _ := strings.Cut(r.Workload, ":")
		base = capital(benchToken(name))
	}
	name := fmt.Sprintf("%s/backend=%s/transport=%s/nodes=%d/value=%d",
		base, benchToken(labelOf(r.Backend, r.Params)), benchToken(r.Transport), r.Nodes, r.ValueBytes)
	for _, k := range varies {
		if v := k.get(r); v != "" {
			name += "/" + k.name + "=" + benchToken(v)
		}
	}
	procs := r.GOMAXPROCS
	if procs <= 0 {
		procs = runtime.GOMAXPROCS(0)
	}
	rec := &benchfmt.Result{Name: benchfmt.Name(name + "-" + strconv.Itoa(procs)), Iters: int(max(r.Ops, 1))}
	for _, u := range benchUnits {
		if v, ok := u.get(r); ok && quantity.Usable(v) {
			rec.Values = append(rec.Values, benchfmt.Value{Value: sixDigits(v), Unit: u.unit})
		}
	}
	if len(rec.Values) == 0 || r.Error != "" {
		return nil
	}
	return rec
}

// sixDigits rounds to what the histograms resolve, so that lines stay readable.
func sixDigits(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// benchToken makes a string fit for a part of a benchmark name, which has
// neither blanks nor slashes.
func benchToken(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '�' || r == '"' {
			return '_'
		}
		return r
	}, clean(s))
	if s == "" {
		return "_"
	}
	return s
}
