package bench

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// observer gathers what the decorators around the parts of every node see. The
// parts know nothing of it.
type observer struct {
	base time.Time
	*tally
	proposer atomic.Pointer[member] // the node that acknowledges
	journal  journal
	watch    Watcher // may be nil
	off      bool    // record nothing but what was acknowledged, to measure what recording costs

	elections atomic.Int64 // that a node here won

	mu     sync.Mutex
	events []result.Event // nodes that became leader, and stalls of the slow disk
}

// tally is what the raft groups of a run have in common.
type tally struct {
	generator atomic.Pointer[load.Generator]
	measuring atomic.Bool
	applied   atomic.Int64 // operations applied on the acknowledging nodes
	reads     atomic.Int64 // answered
	logical   atomic.Int64 // bytes handed to Save and SaveSnap, all nodes
}

// done is the number of operations that have ended well.
func (t *tally) done() int64 { return t.applied.Load() + t.reads.Load() }

// generatorIsLate reports whether the load is late, and then has somebody ready to send.
func (t *tally) generatorIsLate() bool {
	g := t.generator.Load()
	return g != nil && g.Late()
}

// elected notes that a node has become leader.
func (o *observer) elected(id uint64) { o.event("leader", id, "elected") }

// event notes what happens to a node at this moment.
func (o *observer) event(kind string, id uint64, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, result.Event{T: o.now(), Node: int(id), Kind: kind, Text: text})
}

// eventsFrom are those since a time.
func (o *observer) eventsFrom(t time.Duration) []result.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.events), func(e result.Event) bool { return e.T < t })
}

func (o *observer) now() time.Duration { return time.Since(o.base) }

// span is a Save, or a hand-over, and the entries that it held.
type span struct {
	first, last uint64
	start, end  time.Duration
}

// spans is a short queue of spans in order of index, filled by one goroutine and
// consumed by another.
type spans struct {
	mu    sync.Mutex
	items []span
}

func (s *spans) begin(first, last uint64, start time.Duration) {
	s.mu.Lock()
	s.items = append(s.items, span{first: first, last: last, start: start})
	s.mu.Unlock()
}

// finish ends the span that was begun last.
func (s *spans) finish(end time.Duration) {
	s.mu.Lock()
	if n := len(s.items); n > 0 {
		s.items[n-1].end = end
	}
	s.mu.Unlock()
}

// consume calls f for the spans of [first, last], in order, and forgets those
// before and within. What no span holds is left out.
func (s *spans) consume(first, last uint64, f func(from, to uint64, sp span)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := 0
	for _, sp := range s.items {
		if sp.first > last {
			break
		}
		if sp.last >= first {
			f(max(sp.first, first), min(sp.last, last), sp)
		}
		if sp.last <= last {
			used++
		}
	}
	s.items = s.items[:copy(s.items, s.items[used:])]
}

// observedStorage times one node's storage.
type observedStorage struct {
	backends.Storage
	o *observer
	m *member

	rule    syncRule
	saves   spans
	mu      sync.Mutex
	hist    *hdrhistogram.Histogram // Saves that must sync, while measuring, as leader
	entries int64
	bytes   int64

	releases []release

	snapSave atomic.Int64 // duration of the last one, ns
}

func observeStorage(o *observer, m *member, s backends.Storage) *observedStorage {
	return &observedStorage{Storage: s, o: o, m: m, hist: load.NewHistogram()}
}

func (s *observedStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	if s.o.off {
		return s.Storage.Save(hs, ents)
	}
	mustSync := s.rule.mustSync(hs, ents)
	begun := s.o.measuring.Load()
	start := s.o.now()
	if len(ents) > 0 {
		s.saves.begin(ents[0].GetIndex(), ents[len(ents)-1].GetIndex(), start)
	}
	err := s.Storage.Save(hs, ents)
	end := s.o.now()
	if len(ents) > 0 {
		s.saves.finish(end)
	}
	if begun || s.o.measuring.Load() { // under way in the measured time, be it over since
		s.record(mustSync, ents, end-start)
	}
	if w := s.o.watch; w != nil && mustSync {
		w.Saved(s.m.id, end-start)
	}
	return err
}

func (s *observedStorage) record(mustSync bool, ents []*raftpb.Entry, took time.Duration) {
	bytes := 0
	for _, e := range ents {
		bytes += len(e.GetData())
	}
	s.o.logical.Add(int64(bytes))
	if !mustSync || s.o.proposer.Load() != s.m {
		return
	}
	s.mu.Lock()
	load.Record(s.hist, took)
	s.entries += int64(len(ents))
	s.bytes += int64(bytes)
	s.mu.Unlock()
}

func (s *observedStorage) SaveSnap(snap *raftpb.Snapshot) error {
	start := s.o.now()
	err := s.Storage.SaveSnap(snap)
	s.snapSave.Store(int64(s.o.now() - start))
	if s.o.measuring.Load() {
		s.o.logical.Add(int64(len(snap.GetData())))
	}
	return err
}

func (s *observedStorage) Release(snap *raftpb.Snapshot) error {
	start := s.o.now()
	err := s.Storage.Release(snap)
	s.mu.Lock()
	s.releases = append(s.releases, release{snap.GetMetadata().GetIndex(), s.o.now() - start})
	s.mu.Unlock()
	return err
}

// release is one Release that has returned.
type release struct {
	index uint64 // of the snapshot
	took  time.Duration
}

// released is how long the first Release of a snapshot above an index took; false where
// there was none yet.
func (s *observedStorage) released(above uint64) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.releases, func(r release) bool { return r.index > above })
	if i < 0 {
		return 0, false
	}
	return s.releases[i].took, true
}

// observedState times one node's state machine, and acknowledges.
type observedState struct {
	*node.KV
	o     *observer
	m     *member
	hands spans
	batch []load.Done

	create   atomic.Int64 // duration of the last encoding, ns
	restore  atomic.Int64 // duration of the last Restore or RestoreStream, ns
	restored atomic.Int64 // when it ended, since base, ns

	restoredBytes atomic.Int64
}

// committed notes when the loop handed entries over.
func (s *observedState) committed(ents []*raftpb.Entry) {
	if s.o.off {
		return
	}
	s.hands.begin(ents[0].GetIndex(), ents[len(ents)-1].GetIndex(), s.o.now())
}

func (s *observedState) Apply(ents []*raftpb.Entry) {
	s.KV.Apply(ents)
	first, last := ents[0].GetIndex(), ents[len(ents)-1].GetIndex()
	if s.o.proposer.Load() != s.m {
		s.hands.consume(0, last, func(uint64, uint64, span) {})
		s.m.storage.saves.consume(0, last, func(uint64, uint64, span) {})
		return
	}
	s.batch = s.batch[:0]
	now, fresh := s.o.now(), int64(0)
	s.o.journal.mu.Lock()
	for _, e := range ents {
		id := load.ID(e.GetData())
		if s.o.journal.add(e.GetIndex(), e.GetTerm(), id) {
			fresh++ // and not one that a leader before this one has applied
		}
		s.batch = append(s.batch, load.Done{ID: id, Applied: now})
	}
	s.o.journal.mu.Unlock()
	s.m.storage.saves.consume(first, last, func(from, to uint64, sp span) {
		for i := from - first; i <= to-first; i++ {
			s.batch[i].SaveStart, s.batch[i].SaveEnd = sp.start, sp.end
		}
	})
	s.hands.consume(first, last, func(from, to uint64, sp span) {
		for i := from - first; i <= to-first; i++ {
			s.batch[i].Handed = sp.start
		}
	})
	s.o.applied.Add(fresh)
	if g := s.o.generator.Load(); g != nil {
		g.Done(s.batch)
	}
}

func (s *observedState) Snapshot() func() ([]byte, error) {
	start := s.o.now()
	encode := s.KV.Snapshot()
	return func() ([]byte, error) {
		data, err := encode()
		s.create.Store(int64(s.o.now() - start))
		return data, err
	}
}

func (s *observedState) Restore(data []byte) error {
	start := s.o.now()
	err := s.KV.Restore(data)
	s.noteRestore(start, int64(len(data)))
	return err
}

func (s *observedState) noteRestore(start time.Duration, bytes int64) {
	end := s.o.now()
	s.restore.Store(int64(end - start))
	s.restoredBytes.Store(bytes)
	s.restored.Store(int64(end))
}

// observedNetwork notes when snapshots leave and arrive, and can cut a node off.
type observedNetwork struct {
	node.Network
	o        *observer
	cut      atomic.Uint64 // id of the node that is cut off, 0: none
	snapSent atomic.Int64  // since base, ns
	snapGot  atomic.Int64
}

func (w *observedNetwork) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := w.Network.Join(id, observedReceiver{Receiver: r, w: w, id: id})
	if err != nil {
		return nil, err
	}
	o := &observedTransport{Transport: t, w: w, id: id, receiver: r}
	if s, ok := t.(node.SnapshotSender); ok {
		return &observedSender{o, s}, nil
	}
	return o, nil
}

type observedTransport struct {
	node.Transport
	w        *observedNetwork
	id       uint64
	receiver node.Receiver
}

// wrapped is the transport itself, also of an [observedSender].
func (t *observedTransport) wrapped() node.Transport { return t.Transport }

func (t *observedTransport) Send(msgs []*raftpb.Message) {
	cut := t.w.cut.Load()
	if cut != 0 {
		msgs = t.withoutCut(msgs, cut)
	}
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgSnap {
			t.w.snapSent.Store(int64(t.w.o.now()))
		}
	}
	t.Transport.Send(msgs)
}

func (t *observedTransport) withoutCut(msgs []*raftpb.Message, cut uint64) []*raftpb.Message {
	kept := make([]*raftpb.Message, 0, len(msgs))
	for _, m := range msgs {
		switch {
		case t.id != cut && m.GetTo() != cut:
			kept = append(kept, m)
		case m.GetType() == raftpb.MsgSnap:
			t.receiver.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		}
	}
	return kept
}

type observedReceiver struct {
	node.Receiver
	w  *observedNetwork
	id uint64
}

func (r observedReceiver) Process(ctx context.Context, m *raftpb.Message) error {
	if cut := r.w.cut.Load(); cut != 0 && (r.id == cut || m.GetFrom() == cut) {
		return nil // was under way when the link was cut
	}
	if m.GetType() == raftpb.MsgSnap {
		r.w.snapGot.Store(int64(r.w.o.now()))
	}
	return r.Receiver.Process(ctx, m)
}
