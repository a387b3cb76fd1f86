package reports

import (
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// metric is one figure of a run, as bench/stats reads it, with the words and
// the unit in which reports show it.
type metric struct {
	stats.Metric
	title string // head of a table column, without the unit
	long  string // in a sentence
	unit  quantity.Unit
}

// figure finds a metric of bench/stats; a name that is not there is a mistake
// in this package.
func figure(name, title, long string, u quantity.Unit) *metric {
	m, err := stats.Lookup(name)
	if err != nil {
		panic("reports: " + err.Error())
	}
	return &metric{Metric: m, title: title, long: long, unit: u}
}

// get reads the figure of a run; false where it was not measured, or cannot
// have been: NaN, infinite, negative.
func (m *metric) get(r *result.Run) (float64, bool) {
	v, ok := m.Get(r)
	if !ok || !quantity.Usable(v) {
		return 0, false
	}
	return v, true
}

// thin reports whether fewer than 10 samples lie beyond the percentile, so that
// the figure is hardly more than one operation's luck.
func (m *metric) thin(r *result.Run) bool { return !m.Solid(r) }

// lower reports whether less of the metric is better.
func (m *metric) lower() bool { return m.Better == stats.Lower }

// The figures that the reports show.
var (
	metricThroughput  = figure("throughput", "ops/s", "throughput", quantity.Rate)
	metricResponse50  = figure("response.p50", "response p50", "response p50", quantity.Duration)
	metricResponse99  = figure("response.p99", "response p99", "response p99", quantity.Duration)
	metricResponse999 = figure("response.p999", "response p99.9", "response p99.9", quantity.Duration)
	metricService99   = figure("service.p99", "service p99", "service p99", quantity.Duration)
	metricReads99     = figure("reads.p99", "read p99", "p99 of linearizable reads", quantity.Duration)
	metricSave50      = figure("save.p50", "Save p50", "Save p50", quantity.Duration)
	metricSave99      = figure("save.p99", "Save p99", "Save p99", quantity.Duration)
	metricFloor       = figure("save_x_floor", "× floor", "Save as a multiple of the device floor", quantity.Ratio)
	metricFsync50     = figure("fsync.p50", "fsync p50", "fsync p50", quantity.Duration)
	metricFsync99     = figure("fsync.p99", "fsync p99", "fsync p99", quantity.Duration)
	metricEntries     = figure("entries_per_save", "entries/save", "entries per Save", quantity.Count)
	metricFsyncs      = figure("fsyncs_per_op", "fsyncs/op", "fsyncs per operation", quantity.Count)
	metricWriteAmp    = figure("write_amp", "write amp", "write amplification", quantity.Ratio)
	metricSpaceAmp    = figure("space_amp", "space amp", "space amplification", quantity.Ratio)
	metricCPU         = figure("cpu_per_op", "CPU/op", "CPU time per operation", quantity.Duration)
	metricRSS         = figure("rss", "RSS", "memory of the process", quantity.Bytes)
	metricGC          = figure("gc_pause", "GC pauses", "garbage collection pauses in sum", quantity.Duration)
	metricNetBytes    = figure("network.bytes_per_op", "sent/op", "bytes sent between the nodes per operation", quantity.Bytes)
	metricMessages    = figure("network.messages_per_op", "messages/op", "messages between the nodes per operation", quantity.Count)
	metricRTT50       = figure("network.rtt.p50", "round trip", "idle round trip of the transport", quantity.Duration)
	metricStall       = figure("faults.stall", "longest stall", "longest time without an operation through the faults", quantity.Duration)
	metricRecovery    = figure("faults.recovery", "recovery", "time until 90 % of the rate before the faults", quantity.Duration)
	metricElections   = figure("leader_changes", "elections", "changes of the leader", quantity.Count)
	metricErrors      = figure("errors", "errors", "failed operations", quantity.Count)
	metricAllocs      = figure("allocs_per_op", "allocs/op", "allocations per operation", quantity.Count)
	metricInstall     = figure("snapshot.install", "snapshot install", "snapshot install time", quantity.Duration)
	metricForeground  = figure("snapshot.foreground_p99", "response p99 meanwhile", "response p99 during an install", quantity.Duration)
	metricOpen        = figure("restart.open", "restart", "time to open after a restart", quantity.Duration)
	metricReady       = figure("restart.ready", "restart ready", "time until a node is ready after a restart", quantity.Duration)
	metricLogEntries  = figure("restart.entries", "entries in the log", "entries that a restart read", quantity.Count)
	metricLogBytes    = figure("restart.bytes", "bytes in the log", "bytes of entries that a restart read", quantity.Bytes)
	metricDisk        = figure("bytes.disk", "on disk", "bytes on disk, all nodes", quantity.Bytes)
)

// workload is the one that varies the size of what the figure moves.
func (m *metric) workload() string {
	if m == metricInstall || m == metricForeground {
		return "snapshot"
	}
	return "restart"
}

// What the last cycles of the workload age are to the first; they stand in no
// column of runs.csv.
var (
	metricAgeSave = ageMetric(metricSave99, "Save p99, aged")
	metricAgeDisk = ageMetric(metricDisk, "on disk, aged")
)

func ageMetric(of *metric, title string) *metric {
	m := &metric{title: title, long: title, unit: quantity.Ratio}
	m.Name, m.JSON, m.Better = "aging."+of.Name, "aging."+of.JSON, stats.Lower
	m.Get = func(r *result.Run) (float64, bool) {
		for _, c := range r.Aging {
			if c.Metric == of.JSON {
				return c.Ratio, c.Ratio > 0
			}
		}
		return 0, false
	}
	return m
}

// metrics are all of them, in the order in which tables show them.
var metrics = []*metric{
	metricThroughput, metricResponse50, metricResponse99, metricResponse999, metricService99, metricReads99,
	metricSave50, metricSave99, metricFloor, metricFsync50, metricFsync99, metricEntries, metricFsyncs,
	metricWriteAmp, metricSpaceAmp, metricCPU, metricAllocs, metricNetBytes, metricMessages, metricRTT50, metricStall, metricRecovery, metricElections,
	metricRSS, metricGC, metricErrors, metricDisk,
	metricInstall, metricForeground, metricOpen, metricReady, metricLogEntries, metricLogBytes,
}

// moved reports whether the figure depends on the size of what was moved, so that
// only runs of one size have a common median.
func (m *metric) moved() bool {
	switch m {
	case metricInstall, metricForeground, metricOpen, metricReady, metricLogEntries, metricLogBytes:
		return true
	}
	return false
}

// metricByName finds a metric by its name in the schema; nil if this package
// does not show it.
func metricByName(name string) *metric {
	for _, m := range metrics {
		if m.JSON == name || m.Name == name {
			return m
		}
	}
	return nil
}
