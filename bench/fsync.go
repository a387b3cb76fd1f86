package bench

import (
	"errors"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/probe"
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
		dirs[int(m.id)] = m.hostDir
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

// part is what was counted, nil where nothing could be: by the kernel if it could
// tell, else by the engine.
func (w *syncWatch) part() *SyncPart {
	out := &SyncPart{Source: "engine", Nodes: map[uint64]string{}}
	nodes := w.seam
	if r := w.seen; w.kernel != nil && w.seenErr == nil && r.Dropped == 0 {
		out.Source, out.Calls, nodes = "kernel", r.Calls, map[uint64]*hdrhistogram.Histogram{}
		for id, h := range r.Nodes {
			nodes[uint64(id)] = h
		}
	}
	for id, h := range nodes {
		if l := load.Summary(h, true); l.Count > 0 {
			out.Nodes[id] = l.Encoded
		}
	}
	if len(out.Nodes) == 0 {
		return nil
	}
	return out
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
