package bench

import (
	"time"

	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/node"
)

// Watcher hears of one run while it runs, for an endpoint of metrics. Begin is
// called once, the rest from many goroutines at a time; they must be quick.
type Watcher interface {
	// Begin hands over what can be asked from now on, until the process ends. A run
	// whose cluster does not start, the workload restart, and runs of several groups
	// have none.
	Begin(Live)
	// Saved tells of a Save that had to sync.
	Saved(node uint64, took time.Duration)
	// Responded tells of an operation that was applied, or a read that was answered.
	Responded(response time.Duration)
}

// Live is a view of a run that is under way. Its functions may be called from any
// goroutine.
type Live struct {
	One   One
	Nodes func() []LiveNode
	// Operations in flight, and those that failed so far.
	Pending, Failed func() int64
}

// LiveNode is what one node says of itself at a moment.
type LiveNode struct {
	node.Status
	Acknowledges bool                 // the load goes to this one
	Sent         *node.TransportStats // nil: the transport does not count
}

// watch begins to tell the watcher of the run, if there is one.
func (c *cluster) watch() {
	if c.one.Watch == nil {
		return
	}
	of := func(f func(*load.Generator) int64) func() int64 {
		return func() int64 {
			if g := c.o.generator.Load(); g != nil {
				return f(g)
			}
			return 0
		}
	}
	c.one.Watch.Begin(Live{One: c.one, Nodes: c.live, Pending: of((*load.Generator).Pending), Failed: of((*load.Generator).Failed)})
}

// live looks at every node that runs.
func (c *cluster) live() []LiveNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []LiveNode
	for _, m := range c.members {
		if m.down {
			continue
		}
		l := LiveNode{Status: m.node.Status(), Acknowledges: c.o.proposer.Load() == m}
		if s, ok := m.counts(); ok {
			l.Sent = &s
		}
		out = append(out, l)
	}
	return out
}
