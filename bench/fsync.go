package bench

import (
	"errors"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/probe"
	"github.com/raftbench/raftbench/bench/result"
)

// syncWatch sees the sync calls of a run: in the kernel where that is allowed,
// else through the seam of an engine that has one.
type syncWatch struct {
	kernel *probe.Probe // nil: not available

	mu     sync.Mutex
	seam   map[uint64]*hdrhistogram.Histogram // by node
	active bool

	seen    probe.Report // of the measured time, where seenErr is nil
	seenErr error
}

// watchSyncs begins to watch the directories of all nodes. It is quiet where that
// is not allowed: the run says which source its figures have.
func (c *cluster) watchSyncs() {
	if !c.one.Probe || c.one.Backend.Durability == backends.None {
		return
	}
	dirs := map[int]string{}
	for _, m := range c.members {
		dirs[int(m.id)] = m.dir
	}
	if p, err := probe.Start(probe.Options{Nodes: dirs}); err == nil {
		c.syncs.kernel = p
	}
}

// onSync is the backends.Options.OnSync of a node.
func (w *syncWatch) onSync(node uint64) func(time.Duration) {
	return func(d time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.active {
			return
		}
		h := w.seam[node]
		if h == nil {
			h = load.NewHistogram()
			w.seam[node] = h
		}
		load.Record(h, d)
	}
}

// begin starts to count.
func (w *syncWatch) begin() {
	if w.kernel != nil {
		w.kernel.Reset()
	}
	w.mu.Lock()
	w.seam, w.active = map[uint64]*hdrhistogram.Histogram{}, true
	w.mu.Unlock()
}

// end stops counting.
func (w *syncWatch) end() {
	if w.kernel != nil {
		w.seen, w.seenErr = w.kernel.Report()
	}
	w.mu.Lock()
	w.active = false
	w.mu.Unlock()
}

// fill writes what was counted into a run: the latency of every call, all nodes
// together and each for itself. fsyncs per operation are calls of all nodes.
func (w *syncWatch) fill(run *result.Run) {
	all, nodes := load.NewHistogram(), map[int]*hdrhistogram.Histogram{}
	for id, h := range w.seam {
		nodes[int(id)] = h
		all.Merge(h)
	}
	out := result.Fsync{Source: "engine"}
	if r := w.seen; w.kernel != nil && w.seenErr == nil && r.Dropped == 0 {
		out.Source, out.Calls, all, nodes = "kernel", r.Calls, r.All, r.Nodes
	}
	if all.TotalCount() == 0 {
		run.Flags = append(run.Flags, "fsync_missing")
		return
	}
	out.Latency = load.Summary(all, true)
	for id := 1; id <= run.Nodes; id++ {
		if h := nodes[id]; h != nil && h.TotalCount() > 0 {
			out.Nodes = append(out.Nodes, result.NodeFsync{Node: id, Latency: load.Summary(h, false)})
		}
	}
	run.Fsync = &out
	if run.Ops > 0 {
		perOp := float64(all.TotalCount()) / float64(run.Ops)
		run.FsyncsPerOp = &perOp
	}
}

// stop ends the watching.
func (w *syncWatch) stop() error {
	if w.kernel == nil {
		return nil
	}
	_, err := w.kernel.Stop()
	w.kernel = nil
	if errors.Is(err, probe.ErrUnavailable) {
		return nil
	}
	return err
}
