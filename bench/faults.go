package bench

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/faulty"
)

const (
	// faultTimeout is the default of Spec.Timeout where there are faults: a proposal
	// that went to a leader which is gone is never answered, and the clients of a
	// closed loop wait for it that long before they try again.
	faultTimeout = time.Second
	// faultStep is how often the timeline is looked at and the progress is noted; it
	// is the resolution of every duration of result.Faults.
	faultStep = 5 * time.Millisecond
	// Recovered is a cluster that makes 90 % of the rate before the first event over
	// half a second.
	recoveredShare = 0.90
	recoveredOver  = 500 * time.Millisecond
)

// checkFaults checks the timeline against the cluster and the load.
func (s *Spec) checkFaults(check func(ok bool, format string, args ...any)) {
	if s.Faults == "" {
		return
	}
	tl, err := faulty.Parse(s.Faults)
	check(err == nil, "faults: %v", err)
	check(err != nil || len(tl) > 0, "faults %q: the timeline has no event", s.Faults)
	check(s.Workload.Kind == WorkloadPropose, "faults need the workload propose, not %s", s.Workload)
	check(s.Load.Kind == LoadClosed || s.Load.Kind == LoadOpen || s.Load.Kind == LoadPoisson, "faults need a closed, open or poisson load, not %s", s.Load)
	check(s.Ops == 0, "faults need a duration, not a number of operations")
	check(s.Nodes >= 2, "faults need 2 nodes or more, not %d", s.Nodes)
	killed := map[uint64]bool{}
	for _, e := range tl {
		check(e.At < s.Duration, "faults: %q comes after the end of the measured time (%v)", e, s.Duration)
		for _, id := range namedNodes(e.Fault) {
			check(id <= uint64(s.Nodes), "faults: %q: there is no node %d", e, id)
		}
		killed[0] = killed[0] || e.Fault.Kind == faulty.Kill
		check(e.Fault.Kind != faulty.Start || killed[0], "faults: %q: no node was killed before", e)
		check(!s.Placement.remote() || !e.Fault.OfNodes(), "faults: %q: placement %s has faults of links only", e, s.Placement)
	}
}

// namedNodes are the nodes that a fault names by number.
func namedNodes(f faulty.Fault) []uint64 {
	ids := append([]uint64(nil), f.Nodes.IDs...)
	for _, l := range f.Links {
		ids = append(append(ids, l.From.IDs...), l.To.IDs...)
	}
	return ids
}

// faultPlay is the timeline of a run under way. All of it belongs to the goroutine
// that measures.
type faultPlay struct {
	c       *cluster
	net     *faulty.Network
	left    faulty.Timeline
	start   time.Duration // of measuring, since base
	events  []result.FaultEvent
	samples []sample
	sent    node.TransportStats // by lives of nodes that have ended
}

// sample is how many operations were applied at a time since base.
type sample struct {
	at      time.Duration
	applied int64
}

// newFaultPlay wraps the network of a run with faults; nil and the network itself
// where there are none.
func newFaultPlay(c *cluster, inner node.Network) (*faultPlay, node.Network, error) {
	if c.one.Faults == "" {
		return nil, inner, nil
	}
	tl, err := faulty.Parse(c.one.Faults)
	if err != nil {
		return nil, nil, usage("faults: %v", err)
	}
	net := faulty.Wrap(inner, c.one.Seed)
	return &faultPlay{c: c, net: net, left: tl}, net, nil
}

// begin starts the timeline.
func (p *faultPlay) begin() { p.start = p.c.o.now() }

// step notes the progress and makes the events that are due. An event that depends
// on the leader waits for one, and those after it wait with it.
func (p *faultPlay) step() error {
	for {
		now := p.c.o.now()
		p.samples = append(p.samples, sample{now, p.c.o.done()})
		if len(p.left) == 0 || now-p.start < p.left[0].At {
			return nil
		}
		e := p.left[0]
		leader := p.leader()
		if e.Fault.NeedsLeader() && leader == 0 {
			return nil
		}
		p.left = p.left[1:]
		p.note(e.Fault, leader)
		if err := p.apply(e.Fault, leader); err != nil {
			return fmt.Errorf("faults: %q: %w", e, err)
		}
	}
}

// note records an event at this moment.
func (p *faultPlay) note(f faulty.Fault, leader uint64) {
	ev := result.FaultEvent{T: p.c.o.now(), Text: f.String()}
	if f.NeedsLeader() {
		ev.Node = int(leader)
	}
	p.events = append(p.events, ev)
}

func (p *faultPlay) apply(f faulty.Fault, leader uint64) error {
	switch f.Kind {
	case faulty.Kill:
		for i, m := range p.c.members {
			if f.Nodes.Has(m.id, leader) && !m.down {
				if err := p.kill(i); err != nil {
					return err
				}
			}
		}
	case faulty.Start:
		all := f.Nodes.String() == ""
		for i, m := range p.c.members {
			if m.down && (all || f.Nodes.Has(m.id, 0)) {
				if err := p.restart(i); err != nil {
					return err
				}
			}
		}
	default:
		p.net.Apply(f, leader)
		p.c.tellFault(f, leader)
	}
	return nil
}

// tellFault passes a fault of links on to the nodes of other processes.
func (c *cluster) tellFault(f faulty.Fault, leader uint64) {
	if c.faulted != nil {
		c.faulted(LinkFault{f.String(), leader})
	}
}

// kill stops a node without a word to its peers, and closes its storage.
func (p *faultPlay) kill(i int) error {
	m := p.c.members[i]
	p.c.mu.Lock()
	m.down = true
	p.c.mu.Unlock()
	m.node.Stop()
	if s, ok := m.counts(); ok {
		p.sent = p.sent.Add(s)
	}
	if err := m.storage.Close(); err != nil {
		return fmt.Errorf("close %s of node %d: %w", p.c.one.Backend.Label(), m.id, err)
	}
	return nil
}

// restart opens the storage of a killed node again and starts it, as a member of
// its own: others may still look at the one before.
func (p *faultPlay) restart(i int) error {
	old := p.c.members[i]
	m := &member{id: old.id, dir: old.dir, hostDir: old.hostDir}
	if err := p.c.startMember(m); err != nil {
		return err
	}
	p.c.past = append(p.c.past, old)
	p.c.mu.Lock()
	p.c.members[i] = m
	p.c.mu.Unlock()
	return nil
}

// end mends every link and starts every node again, so that what was acknowledged
// can be looked for on all of them.
func (p *faultPlay) end(ctx context.Context) error {
	p.net.Heal()
	p.c.tellFault(faulty.Fault{Kind: faulty.Heal}, raft.None)
	if err := p.apply(faulty.Fault{Kind: faulty.Start}, 0); err != nil {
		return fmt.Errorf("faults: start the nodes again at the end: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, ElectionDeadline,
		fmt.Errorf("faults: no leader within %v after the end of all faults", ElectionDeadline))
	defer cancel()
	return p.c.wait(ctx, func() bool { return p.leader() != raft.None })
}

// leader is the node that leads, 0 where none is known to.
func (p *faultPlay) leader() uint64 {
	if p.c.elsewhere { // as far as the only node here knows
		return p.c.members[0].node.Status().Lead
	}
	for _, m := range p.c.members {
		if m == p.c.o.proposer.Load() && !m.down && m.node.Status().IsLeader {
			return m.id
		}
	}
	return raft.None
}

// tolerant is the error of a call to a node that a fault may have ended: the
// client hears nothing, and gives up at its timeout.
func (c *cluster) tolerant(err error) error {
	if c.faults != nil && errors.Is(err, node.ErrStopped) {
		return nil
	}
	return err
}

// fill writes the timeline as it happened, and how the cluster got over it.
func (p *faultPlay) fill(run *result.Run) {
	out := run.Faults
	for i := range p.events {
		e := &p.events[i]
		run.Events = append(run.Events, result.Event{T: e.T, Node: e.Node, Kind: "fault", Text: e.Text})
	}
	for _, e := range p.c.o.eventsFrom(p.start) {
		run.Events = append(run.Events, e)
		if e.Kind == "leader" {
			run.LeaderChanges++
		}
	}
	sort.SliceStable(run.Events, func(i, j int) bool { return run.Events[i].T < run.Events[j].T })
	if len(p.events) == 0 || len(p.samples) == 0 {
		return
	}
	out.Before = p.rate(p.start, p.events[0].T)
	last := p.samples[len(p.samples)-1].at
	for i := range p.events {
		e := &p.events[i]
		until := last
		if i+1 < len(p.events) {
			until = p.events[i+1].T
		}
		e.Stall = p.stall(e.T, until)
		e.Recovery = p.recovery(e.T, until, out.Before)
	}
	out.Events, out.Stall = p.events, p.stall(p.events[0].T, last)
	if p.events[len(p.events)-1].Recovery == nil {
		return // what was not seen to end has no duration
	}
	for _, e := range p.events {
		if e.Recovery != nil && (out.Recovery == nil || *e.Recovery > *out.Recovery) {
			out.Recovery = e.Recovery
		}
	}
}

// timeline is the text of the faults in one line.
func (o One) timeline() string {
	tl, err := faulty.Parse(o.Faults)
	if err != nil {
		return o.Faults
	}
	return strings.ReplaceAll(strings.TrimSpace(tl.String()), "\n", "; ")
}

// at is how many operations were applied at a time, interpolated.
func (p *faultPlay) at(t time.Duration) float64 {
	i := sort.Search(len(p.samples), func(i int) bool { return p.samples[i].at >= t })
	switch {
	case i == len(p.samples):
		return float64(p.samples[i-1].applied)
	case i == 0:
		return float64(p.samples[0].applied)
	}
	a, b := p.samples[i-1], p.samples[i]
	share := float64(t-a.at) / float64(max(b.at-a.at, 1))
	return float64(a.applied) + share*float64(b.applied-a.applied)
}

// rate is the operations a second between two times; 0 for no time.
func (p *faultPlay) rate(from, to time.Duration) float64 {
	if to <= from {
		return 0
	}
	return (p.at(to) - p.at(from)) / (to - from).Seconds()
}

// stall is the longest time between two samples, from one time to another, in which
// nothing was applied.
func (p *faultPlay) stall(from, to time.Duration) time.Duration {
	longest := time.Duration(0)
	begin, count := from, int64(-1)
	for _, s := range p.samples {
		if s.at < from || s.at > to {
			continue
		}
		if s.applied != count {
			begin, count = s.at, s.applied
		}
		longest = max(longest, s.at-begin)
	}
	return longest
}

// recovery is the time after an event until the rate was back, nil where it was not
// before the next one.
func (p *faultPlay) recovery(from, to time.Duration, before float64) *time.Duration {
	if before == 0 {
		return nil
	}
	for t := from; t+recoveredOver <= to; t += faultStep {
		if p.rate(t, t+recoveredOver) >= recoveredShare*before {
			took := t - from
			return &took
		}
	}
	return nil
}
