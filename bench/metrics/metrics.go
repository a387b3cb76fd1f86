// Package metrics shows a run that is under way as Prometheus metrics: under
// etcd's names where the meaning is etcd's, so that dashboards and alerts made for
// etcd draw a raftbench run, and as raftbench_* where it is not.
//
// What differs from etcd: all nodes of a cluster may be in one process, so every
// etcd_* series has the label node; etcd_disk_wal_fsync_duration_seconds is Save
// where it must sync, write included, on whatever storage is measured, with buckets
// from 10 µs up (etcd's begin at 1 ms, which an NVMe disk never leaves); and
// etcd_network_peer_sent_bytes_total is the sum over a node's peers, without the
// label To.
//
// Most figures are read when they are asked for. Only two are recorded, Save and
// response time, at some 50 ns each.
package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/raftbench/raftbench/bench"
)

// Buckets double from 10 µs: to 5.2 s for a Save, to 21 s for an operation, twice
// its default timeout.
const (
	firstBucket     = 10e-6
	saveBuckets     = 20
	responseBuckets = 22
)

// Run is the metrics of one run, in a registry of its own: the engines fill the
// process-global one with theirs. It implements [bench.Watcher].
type Run struct {
	registry *prometheus.Registry
	saves    *prometheus.HistogramVec
	response prometheus.Histogram
	nodes    sync.Map // node id → prometheus.Observer of saves
	live     atomic.Pointer[bench.Live]
	phase    atomic.Pointer[string]
}

var _ bench.Watcher = (*Run)(nil)

// New returns the metrics of a run that has not begun.
func New() *Run {
	r := &Run{
		registry: prometheus.NewRegistry(),
		saves: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_disk_wal_fsync_duration_seconds", Help: "Save calls that had to sync, write included.",
			Buckets: prometheus.ExponentialBuckets(firstBucket, 2, saveBuckets),
		}, []string{"node"}),
		response: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "raftbench_response_seconds", Help: "From when an operation was to be sent until it was applied.",
			Buckets: prometheus.ExponentialBuckets(firstBucket, 2, responseBuckets),
		}),
	}
	r.registry.MustRegister(r.saves, r.response, (*liveCollector)(r),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Begin implements [bench.Watcher].
func (r *Run) Begin(live bench.Live) { r.live.Store(&live) }

// Saved implements [bench.Watcher].
func (r *Run) Saved(node uint64, took time.Duration) {
	o, ok := r.nodes.Load(node)
	if !ok {
		o, _ = r.nodes.LoadOrStore(node, r.saves.WithLabelValues(nodeLabel(node)))
	}
	o.(prometheus.Observer).Observe(took.Seconds())
}

// Responded implements [bench.Watcher].
func (r *Run) Responded(response time.Duration) { r.response.Observe(response.Seconds()) }

// Phase notes what the run is doing.
func (r *Run) Phase(name string) { r.phase.Store(&name) }

// Handler answers with the metrics, in Prometheus' text format alone, so that what
// it writes can stand beside other metrics.
func (r *Run) Handler() http.Handler { return Text(r.registry) }

// Text answers with what a registry holds, in the text format, not compressed.
func Text(g prometheus.Gatherer) http.Handler {
	h := promhttp.HandlerFor(g, promhttp.HandlerOpts{DisableCompression: true})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req = req.Clone(req.Context())
		req.Header.Del("Accept") // which would choose another format
		h.ServeHTTP(w, req)
	})
}

func nodeLabel(id uint64) string { return strconv.FormatUint(id, 10) }

// The metrics that are read from the run when they are asked for.
var (
	descCommitted  = perNode("etcd_server_proposals_committed_total", "Index of the last committed entry.")
	descApplied    = perNode("etcd_server_proposals_applied_total", "Index of the last applied entry.")
	descPending    = perNode("etcd_server_proposals_pending", "Operations in flight, of the node that the load goes to.")
	descFailed     = perNode("etcd_server_proposals_failed_total", "Operations that failed or timed out, of the node that the load goes to.")
	descHasLeader  = perNode("etcd_server_has_leader", "Whether the node knows of a leader: 1 or 0.")
	descIsLeader   = perNode("etcd_server_is_leader", "Whether the node is the leader: 1 or 0.")
	descChanges    = perNode("etcd_server_leader_changes_seen_total", "Leaders seen that differ from the one before.")
	descHeartbeats = perNode("etcd_server_heartbeat_send_failures_total", "Heartbeats sent later than twice the interval.")
	descSent       = perNode("etcd_network_peer_sent_bytes_total", "Bytes that the transport sent to all peers.")
	descMessages   = perNode("raftbench_network_sent_messages_total", "Messages that the transport accepted.")
	descDropped    = perNode("raftbench_network_dropped_messages_total", "Messages that the transport refused or lost.")

	descInfo = prometheus.NewDesc("raftbench_run_info", "The run under way; always 1.",
		[]string{"run", "backend", "transport", "loop", "nodes", "load", "workload"}, nil)
	descPhase = prometheus.NewDesc("raftbench_run_phase", "What the run is doing; always 1.", []string{"phase"}, nil)

	liveDescs = []*prometheus.Desc{descCommitted, descApplied, descPending, descFailed, descHasLeader, descIsLeader,
		descChanges, descHeartbeats, descSent, descMessages, descDropped, descInfo, descPhase}
)

func perNode(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"node"}, nil)
}

// liveCollector reads a run when its metrics are asked for.
type liveCollector Run

// Describe implements prometheus.Collector.
func (c *liveCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range liveDescs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *liveCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if phase := c.phase.Load(); phase != nil {
		gauge(descPhase, 1, *phase)
	}
	live := c.live.Load()
	if live == nil {
		return
	}
	one := live.One
	gauge(descInfo, 1, one.ID(), one.Backend.Label(), one.Transport, string(one.Loop), strconv.Itoa(one.Nodes), one.Load.String(), one.Workload.String())
	for _, n := range live.Nodes() {
		id := nodeLabel(n.ID)
		count := func(d *prometheus.Desc, v int64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), id)
		}
		// etcd's are gauges too, in spite of their names.
		gauge(descCommitted, float64(n.Committed), id)
		gauge(descApplied, float64(n.Applied), id)
		gauge(descHasLeader, truth(n.HasLeader), id)
		gauge(descIsLeader, truth(n.IsLeader), id)
		count(descChanges, n.LeaderChanges)
		count(descHeartbeats, n.LateHeartbeats)
		if n.Acknowledges {
			gauge(descPending, float64(live.Pending()), id)
			count(descFailed, live.Failed())
		}
		if n.Sent != nil {
			count(descSent, n.Sent.Bytes)
			count(descMessages, n.Sent.Messages)
			count(descDropped, n.Sent.Dropped)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
