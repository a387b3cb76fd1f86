package stats

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// Unit is what a metric is counted in.
type Unit string

// The units of the metrics. A value of a [Metric] is always in its unit: there
// are no milliseconds or mebibytes inside this module.
const (
	Nanoseconds  Unit = "ns"
	Bytes        Unit = "B"
	OpsPerSecond Unit = "ops/s"
	Count        Unit = "" // counts and ratios
)

// Better is the direction in which a metric improves.
type Better int

// The directions. A metric without one describes (a size, a batch length) and is
// never given a verdict.
const (
	Neither Better = iota
	Lower
	Higher
)

// Metric is one figure of a run.
type Metric struct {
	// Name is the dotted JSON path without the unit's suffix: "save.p99".
	Name string
	// JSON is the dotted JSON path: "save.p99_ns".
	JSON   string
	Unit   Unit
	Better Better
	// Get reads the figure; false where the run does not have it.
	Get func(*result.Run) (float64, bool)
	// tail is the share of operations beyond a percentile, 0 for other metrics;
	// latency is the distribution that it belongs to.
	tail    float64
	latency func(*result.Run) *result.Latency
	mishaps bool // what should not happen: one run in which it did is not made good by others
}

// minBeyond is how many operations must lie beyond a percentile before it says
// something about the system rather than about three unlucky operations.
const minBeyond = 10

// Supported reports whether a distribution of count operations has enough of
// them beyond quantile q (0.99 for p99) for the figure to be relied upon.
func Supported(count int64, q float64) bool {
	// The product is rounded: 10000 × (1 − 0.999) is 9.999… in binary.
	return float64(count)*(1-q) >= minBeyond-1e-6
}

// Solid reports whether the run has the figure and, for a percentile, enough
// operations beyond it.
func (m Metric) Solid(r *result.Run) bool {
	if _, ok := m.Get(r); !ok {
		return false
	}
	return m.tail == 0 || Supported(m.latency(r).Count, 1-m.tail)
}

// Metrics lists every metric, in the order of result.json.
func Metrics() []Metric { return slices.Clone(metrics) }

// Lookup finds a metric by Name or by JSON path.
func Lookup(name string) (Metric, error) {
	for _, m := range metrics {
		if m.Name == name || m.JSON == name {
			return m, nil
		}
	}
	return Metric{}, fmt.Errorf("unknown metric %q; %s", name, suggest(name))
}

// suggest names the metrics of the same family, or the families.
func suggest(name string) string {
	family, _, _ := strings.Cut(name, ".")
	var same, all []string
	for _, m := range metrics {
		f, _, _ := strings.Cut(m.Name, ".")
		if f == family {
			same = append(same, m.Name)
		}
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	if len(same) > 0 {
		return "known: " + strings.Join(same, ", ")
	}
	return "known: " + strings.Join(all, ", ")
}

var metrics = slices.Concat(
	[]Metric{
		scalar("ops", "ops", Count, Higher, func(r *result.Run) float64 { return float64(r.Ops) }, driven),
		mishaps("errors", func(r *result.Run) int64 { return r.Errors }, driven),
		throughput,
	},
	latency("response", func(r *result.Run) *result.Latency { return &r.Response }),
	latency("service", func(r *result.Run) *result.Latency { return &r.Service }),
	latency("lag", func(r *result.Run) *result.Latency { return &r.Lag }),
	latency("reads", func(r *result.Run) *result.Latency { return &r.Reads }),
	latency("save", func(r *result.Run) *result.Latency { return &r.Save }),
	[]Metric{
		nonzero("save_bytes", "save_bytes", Bytes, Neither, func(r *result.Run) float64 { return r.SaveBytes }),
		nonzero("save_x_floor", "save_x_floor", Count, Lower, func(r *result.Run) float64 { return r.SaveFloor }),
	},
	latency("fsync", func(r *result.Run) *result.Latency {
		if r.Fsync == nil {
			return &result.Latency{}
		}
		return &r.Fsync.Latency
	}),
	[]Metric{
		pointer("fsyncs_per_op", "fsyncs_per_op", Count, Lower, func(r *result.Run) *float64 { return r.FsyncsPerOp }),
		pointer("entries_per_save", "entries_per_save", Count, Neither, func(r *result.Run) *float64 { return r.EntriesPerSave }),
	},
	stages(), snapshots(), restarts(), written(),
	[]Metric{
		pointer("write_amp", "write_amp", Count, Lower, func(r *result.Run) *float64 { return r.WriteAmp }),
		pointer("space_amp", "space_amp", Count, Lower, func(r *result.Run) *float64 { return r.SpaceAmp }),
		pointer("cpu_per_op", "cpu_ns_per_op", Nanoseconds, Lower, func(r *result.Run) *float64 { return r.CPUPerOp }),
		pointer("allocs_per_op", "allocs_per_op", Count, Lower, func(r *result.Run) *float64 { return r.AllocsPerOp }),
		pointer("gc_pause", "gc_pause_ns", Nanoseconds, Lower, func(r *result.Run) *int64 { return r.GCPause }),
		pointer("rss", "rss_bytes", Bytes, Lower, func(r *result.Run) *int64 { return r.RSS }),
		networkPart("bytes_per_op", Bytes, Lower, func(n *result.Network) *float64 { return n.BytesPerOp }),
		networkPart("messages_per_op", Count, Neither, func(n *result.Network) *float64 { return n.MessagesPerOp }),
	},
	latency("network.rtt", func(r *result.Run) *result.Latency {
		if r.Network == nil {
			return &result.Latency{}
		}
		return &r.Network.RTT
	}),
	[]Metric{
		scalar("faults.stall", "faults.stall_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(r.Faults.Stall) },
			func(r *result.Run) bool { return r.Faults != nil && r.Faults.Stall > 0 }),
		scalar("faults.recovery", "faults.recovery_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(*r.Faults.Recovery) },
			func(r *result.Run) bool { return r.Faults != nil && r.Faults.Recovery != nil }),
		mishaps("leader_changes", func(r *result.Run) int64 { return r.LeaderChanges }, driven),
		mishaps("late_heartbeats", func(r *result.Run) int64 { return r.LateHeartbeats }, driven),
		mishaps("verified.lost", func(r *result.Run) int64 { return r.Verified.Lost }, verified),
		mishaps("verified.wrong", func(r *result.Run) int64 { return r.Verified.Wrong }, verified),
	},
)

// driven: a run that put a load on a cluster, and ended with figures.
func driven(r *result.Run) bool { return r.Error == "" && r.Workload != "restart" }

// throughput is what tells a run that stood from one that was not measured.
var throughput = scalar("throughput", "throughput_ops", OpsPerSecond, Higher, func(r *result.Run) float64 { return r.Throughput }, loaded)

// loaded: the throughput of a run that was measured for a time is a figure, 0 too.
func loaded(r *result.Run) bool { return r.Throughput > 0 || r.Elapsed > 0 && r.Error == "" }

func verified(r *result.Run) bool { return r.Verified != nil }

func scalar(name, json string, unit Unit, better Better, get func(*result.Run) float64, has func(*result.Run) bool) Metric {
	return Metric{Name: name, JSON: json, Unit: unit, Better: better, Get: func(r *result.Run) (float64, bool) {
		if !has(r) {
			return 0, false
		}
		return get(r), true
	}}
}

// mishaps counts what should not happen at all.
func mishaps(name string, get func(*result.Run) int64, has func(*result.Run) bool) Metric {
	m := scalar(name, name, Count, Lower, func(r *result.Run) float64 { return float64(get(r)) }, has)
	m.mishaps = true
	return m
}

// nonzero is a figure for which 0 means that it was not measured.
func nonzero(name, json string, unit Unit, better Better, get func(*result.Run) float64) Metric {
	return scalar(name, json, unit, better, get, func(r *result.Run) bool { return get(r) != 0 })
}

func pointer[T int64 | float64](name, json string, unit Unit, better Better, get func(*result.Run) *T) Metric {
	return scalar(name, json, unit, better,
		func(r *result.Run) float64 { return float64(*get(r)) },
		func(r *result.Run) bool { return get(r) != nil })
}

func latency(family string, of func(*result.Run) *result.Latency) []Metric {
	one := func(name string, tail float64, get func(*result.Latency) time.Duration) Metric {
		return Metric{
			Name: family + "." + name, JSON: family + "." + name + "_ns",
			Unit: Nanoseconds, Better: Lower, tail: tail, latency: of,
			Get: func(r *result.Run) (float64, bool) {
				l := of(r)
				return float64(get(l)), l.Count > 0
			},
		}
	}
	return []Metric{
		{Name: family + ".count", JSON: family + ".count", Get: func(r *result.Run) (float64, bool) {
			l := of(r)
			return float64(l.Count), l.Count > 0
		}},
		one("mean", 0, func(l *result.Latency) time.Duration { return l.Mean }),
		one("p50", 0.5, func(l *result.Latency) time.Duration { return l.P50 }),
		one("p90", 0.1, func(l *result.Latency) time.Duration { return l.P90 }),
		one("p99", 0.01, func(l *result.Latency) time.Duration { return l.P99 }),
		one("p999", 0.001, func(l *result.Latency) time.Duration { return l.P999 }),
		one("max", 0, func(l *result.Latency) time.Duration { return l.Max }),
	}
}

func networkPart(name string, unit Unit, better Better, get func(*result.Network) *float64) Metric {
	return scalar("network."+name, "network."+name, unit, better,
		func(r *result.Run) float64 { return *get(r.Network) },
		func(r *result.Run) bool { return r.Network != nil && get(r.Network) != nil })
}

func stages() []Metric {
	one := func(name string, get func(*result.Stages) time.Duration) Metric {
		return scalar("stages."+name, "stages."+name+"_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(get(r.Stages)) },
			func(r *result.Run) bool { return r.Stages != nil })
	}
	return []Metric{
		one("queue", func(s *result.Stages) time.Duration { return s.Queue }),
		one("save", func(s *result.Stages) time.Duration { return s.Save }),
		one("replicate", func(s *result.Stages) time.Duration { return s.Replicate }),
		one("apply", func(s *result.Stages) time.Duration { return s.Apply }),
	}
}

func snapshots() []Metric {
	one := func(name string, get func(*result.Snapshot) time.Duration) Metric {
		return scalar("snapshot."+name, "snapshot."+name+"_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(get(r.Snapshot)) },
			func(r *result.Run) bool { return r.Snapshot != nil && get(r.Snapshot) != 0 })
	}
	return []Metric{
		scalar("snapshot.bytes", "snapshot.bytes", Bytes, Neither,
			func(r *result.Run) float64 { return float64(r.Snapshot.Bytes) },
			func(r *result.Run) bool { return r.Snapshot != nil }),
		one("create", func(s *result.Snapshot) time.Duration { return s.Create }),
		one("transfer", func(s *result.Snapshot) time.Duration { return s.Transfer }),
		one("save", func(s *result.Snapshot) time.Duration { return s.Save }),
		one("restore", func(s *result.Snapshot) time.Duration { return s.Restore }),
		one("release", func(s *result.Snapshot) time.Duration { return s.Release }),
		one("install", func(s *result.Snapshot) time.Duration { return s.Install }),
		one("foreground_p99", func(s *result.Snapshot) time.Duration { return s.ForegroundP99 }),
	}
}

func restarts() []Metric {
	has := func(r *result.Run) bool { return r.Restart != nil }
	return []Metric{
		scalar("restart.open", "restart.open_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(r.Restart.Open) }, has),
		scalar("restart.ready", "restart.ready_ns", Nanoseconds, Lower,
			func(r *result.Run) float64 { return float64(r.Restart.Ready) },
			func(r *result.Run) bool { return has(r) && r.Restart.Ready != 0 }),
		scalar("restart.entries", "restart.entries", Count, Neither,
			func(r *result.Run) float64 { return float64(r.Restart.Entries) }, has),
		scalar("restart.bytes", "restart.bytes", Bytes, Neither,
			func(r *result.Run) float64 { return float64(r.Restart.Bytes) }, has),
	}
}

func written() []Metric {
	part := func(name string, get func(*result.Bytes) *int64) Metric {
		return scalar("bytes."+name, "bytes."+name, Bytes, Lower,
			func(r *result.Run) float64 { return float64(*get(r.Bytes)) },
			func(r *result.Run) bool { return r.Bytes != nil && get(r.Bytes) != nil })
	}
	return []Metric{
		scalar("bytes.logical", "bytes.logical", Bytes, Neither,
			func(r *result.Run) float64 { return float64(r.Bytes.Logical) },
			func(r *result.Run) bool { return r.Bytes != nil }),
		part("written", func(b *result.Bytes) *int64 { return b.Written }),
		part("disk", func(b *result.Bytes) *int64 { return b.Disk }),
		part("network", func(b *result.Bytes) *int64 { return b.Network }),
	}
}
