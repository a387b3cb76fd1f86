package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/faulty"
)

// Member is one node of a run whose other nodes are in other processes. Whoever
// drives them all (bench/remote) has one of them carry the load, by [Member.Load],
// the others count meanwhile, between [Member.Measure] true and false; and then all
// look for what that one acknowledged, by its journal and [Member.Verify].
//
// The node, its decorators and recorders are those of a run in one process.
// Calls may come from several goroutines, except that Stop and what follows it
// come after all others have returned.
type Member struct {
	c      *cluster
	local  *member
	before int // GOMAXPROCS
	stop   sync.Once
	err    error // of stopping
}

// StartMember opens the storage of node id in dir, which must exist, and starts it
// on a network through which it can reach the others, now or later. GOMAXPROCS is
// changed until Stop. The network is closed by Stop, also after an error.
func StartMember(one One, id uint64, dir string, network node.Network) (*Member, error) {
	// Whoever sends the run may not have files made where the node is.
	one.CPUProfile, one.ExecTrace = "", ""
	payloads, _, err := one.payloads()
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	c := newCluster(one, payloads, nil, &tally{})
	c.elsewhere = true
	play, faulted, err := newFaultPlay(c, network)
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	c.faults, c.net.Network = play, faulted
	m := &Member{c: c, local: &member{id: id, dir: dir, hostDir: dir}}
	procs := one.GOMAXPROCS
	if procs == 0 {
		procs = memberProcs(one)
	}
	m.before = runtime.GOMAXPROCS(procs)
	if err := c.startMember(m.local); err != nil {
		runtime.GOMAXPROCS(m.before)
		return nil, errors.Join(err, network.Close())
	}
	c.members = []*member{m.local}
	c.watchSyncs()
	return m, nil
}

// memberProcs is the node's share of the cores, all of them on a machine of its
// own, and a spare one where storage may hold one in a blocking fsync.
func memberProcs(one One) int {
	procs := runtime.NumCPU()
	if one.Placement == PlacementProcess {
		procs = (procs + one.Nodes - 1) / one.Nodes
	}
	if one.Backend.Durability != backends.None {
		procs++
	}
	return procs
}

// Status is the node's view of itself.
func (m *Member) Status() node.Status { return m.local.node.Status() }

// Err is why the node stopped by itself, nil while it has not.
func (m *Member) Err() error { return m.c.failed() }

// Failed is closed when the node has stopped by itself.
func (m *Member) Failed() <-chan struct{} { return m.local.node.Failed() }

// Campaign asks the node to become leader, as soon as it may.
func (m *Member) Campaign(ctx context.Context) error {
	n := m.local.node
	return m.c.wait(ctx, func() bool {
		return n.Status().Applied >= uint64(m.c.one.Nodes) && n.Campaign(ctx) == nil
	})
}

// Load makes this node the one that acknowledges, and runs the load on it: warm-up,
// measured time, drain. The other nodes must be told what it tells: when the measured
// time begins and ends ([Member.Measure]), and the faults of links of the timeline
// ([Member.Fault]); measuring and faulted must not block. What the run costs is not in
// it: see [Member.Part]. Should leadership move meanwhile, the node forwards proposals
// to the new leader.
func (m *Member) Load(ctx context.Context, report func(Progress), measuring func(bool), faulted func(LinkFault)) (result.Run, error) {
	m.c.o.proposer.Store(m.local)
	m.c.measuring, m.c.faulted = measuring, faulted
	run := m.c.one.Header()
	run.GOMAXPROCS = runtime.GOMAXPROCS(0)
	err := m.c.measure(ctx, &run, func(p Progress) {
		p.Backend = m.c.one.Backend.Label()
		report(p)
	})
	return run, err
}

// Measure begins and ends the measured time on a node without load.
func (m *Member) Measure(on bool) {
	if on {
		m.c.beginMeasuring()
		return
	}
	m.c.endMeasuring()
}

// LinkFault is a fault of links of the run's timeline, and who led when it came.
type LinkFault struct {
	Fault  string // without a time, in the grammar of node/transport/faulty
	Leader uint64
}

// Fault applies a fault to the links of a node without load.
func (m *Member) Fault(f LinkFault) error {
	if m.c.faults == nil {
		return fmt.Errorf("node %d: the run has no timeline of faults", m.local.id)
	}
	tl, err := faulty.Parse("at 0s: " + f.Fault)
	if err != nil {
		return fmt.Errorf("node %d: %w", m.local.id, err)
	}
	if len(tl) != 1 || tl[0].Fault.OfNodes() {
		return fmt.Errorf("node %d: %q is not one fault of links", m.local.id, f.Fault)
	}
	m.c.faults.net.Apply(tl[0].Fault, f.Leader)
	return nil
}

// Part is what this process used in the measured time, which must have ended.
func (m *Member) Part() (Part, error) {
	if m.c.after == nil {
		return Part{}, fmt.Errorf("node %d: nothing was measured", m.local.id)
	}
	return m.c.part(), nil
}

// Outcome is what the node counted so far.
func (m *Member) Outcome() Outcome { return m.c.outcome() }

// Stop ends the node and closes its storage; the directory stays. Later calls do
// nothing.
func (m *Member) Stop() error {
	m.stop.Do(func() {
		m.err = m.c.stop()
		runtime.GOMAXPROCS(m.before)
	})
	return m.err
}

// Verify reopens the storage, after Stop, and looks for every entry of the journal,
// as [RunOne] does. The restart is what reopening cost; nil for a backend that keeps
// nothing.
func (m *Member) Verify() (result.Verified, *result.Restart, error) {
	m.c.o.proposer.Store(m.local)
	return m.c.verifyCluster(nil)
}

// JournalPiece is part of what was acknowledged, to be sent to the other nodes:
// payloads follow from ids, so an entry takes 8 bytes.
type JournalPiece struct {
	First uint64        // index of the first entry of the journal
	IDs   []byte        // operation ids, 8 bytes each, little endian; 0: not a proposal
	Terms []JournalTerm // of the whole journal; in the first piece
	Last  bool
}

// JournalTerm says that entries from an index on are of a term.
type JournalTerm struct{ From, Term uint64 }

// Journal is piece nth of what this node acknowledged, from 0.
func (m *Member) Journal(nth int) JournalPiece {
	j := &m.c.o.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	p := JournalPiece{First: j.first, Last: nth+1 >= len(j.chunks)}
	if nth == 0 {
		for _, t := range j.terms {
			p.Terms = append(p.Terms, JournalTerm{t.from, t.term})
		}
	}
	if nth < len(j.chunks) {
		for _, id := range j.chunks[nth] {
			p.IDs = binary.LittleEndian.AppendUint64(p.IDs, id)
		}
	}
	return p
}

// AddJournal takes the next piece of what another node acknowledged.
func (m *Member) AddJournal(p JournalPiece) error {
	j := &m.c.o.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(p.IDs)%8 != 0 || len(p.IDs) > 8*journalChunk {
		return fmt.Errorf("journal: %d bytes are not a piece of it", len(p.IDs))
	}
	if len(j.chunks) == 0 {
		j.first, j.next = p.First, p.First
	}
	for _, t := range p.Terms {
		j.terms = append(j.terms, termRun{t.From, t.Term})
	}
	if len(j.terms) == 0 && len(p.IDs) > 0 {
		return errors.New("journal: entries without a term")
	}
	for ids := p.IDs; len(ids) > 0; ids = ids[8:] {
		j.put(binary.LittleEndian.Uint64(ids))
		j.next++
	}
	return nil
}
