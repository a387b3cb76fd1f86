package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// The restart workload writes the log of one node of a cluster, ends the process
// that wrote it, cleanly or by kill -9, and times how long the node needs from
// Open until its loop runs and its state machine has applied every entry that was
// committed. The files are in the page cache, as after a crash of the process
// alone; a machine that starts anew has to read them first.
const (
	// restartBatch is how many entries share a Save of the log that is written.
	restartBatch = 64
	restartTerm  = 1
	// restartDeadline bounds the replay.
	restartDeadline = 10 * time.Minute
)

// restartLog is the log of a run: the voters' own entries, as raft.StartNode
// writes them, and then the proposals, whose ids count from 1.
type restartLog struct {
	nodes     int
	proposals int64
	payloads  *load.Payloads
}

func (o One) restartLog() (*restartLog, error) {
	payloads, _, err := o.payloads()
	if err != nil {
		return nil, err
	}
	return &restartLog{nodes: o.Nodes, proposals: max(o.StateSize/int64(payloads.Mean()), 1), payloads: payloads}, nil
}

func (l *restartLog) last() uint64 { return uint64(l.nodes) + uint64(l.proposals) }

func (l *restartLog) entry(index uint64) (*raftpb.Entry, error) {
	e := &raftpb.Entry{Index: proto.Uint64(index), Term: proto.Uint64(restartTerm)}
	if index > uint64(l.nodes) {
		e.Data = l.payloads.Make(index - uint64(l.nodes))
		return e, nil
	}
	cc := &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(index)}
	data, err := proto.Marshal(cc)
	if err != nil {
		return nil, fmt.Errorf("encode the voters: %w", err)
	}
	e.Type, e.Data = raftpb.EntryConfChange.Enum(), data
	return e, nil
}

func (o One) restartDir() string { return filepath.Join(o.RunDir, "node-1") }

// WriteLog writes the log of a restart run into one.RunDir and returns the
// storage, still open: a process that is to be killed is killed with it open, any
// other closes it.
func WriteLog(ctx context.Context, one One) (backends.Storage, error) {
	l, err := one.restartLog()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(one.restartDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the node's directory: %w", err)
	}
	storage, _, err := one.Backend.Open(backends.Options{Dir: one.restartDir()})
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", one.Backend.Label(), one.restartDir(), err)
	}
	if err := l.write(ctx, storage); err != nil {
		return nil, errors.Join(fmt.Errorf("write the log of %s: %w", one.Backend.Label(), err), storage.Close())
	}
	return storage, nil
}

// write saves the log as a leader would: each Save commits what the one before
// it held, and a last one without entries commits the rest.
func (l *restartLog) write(ctx context.Context, storage backends.Storage) error {
	hs := func(commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: proto.Uint64(restartTerm), Vote: proto.Uint64(1), Commit: proto.Uint64(commit)}
	}
	saved := uint64(0)
	for saved < l.last() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(restartBatch, l.last()-saved)
		ents := make([]*raftpb.Entry, n)
		for i := range ents {
			e, err := l.entry(saved + 1 + uint64(i))
			if err != nil {
				return err
			}
			ents[i] = e
		}
		if err := storage.Save(hs(saved), ents); err != nil {
			return fmt.Errorf("entries %d to %d: %w", saved+1, saved+n, err)
		}
		saved += n
	}
	return storage.Save(hs(saved), nil)
}

// runRestart opens the log, starts the node, and then looks for every entry that
// was saved.
func runRestart(ctx context.Context, one One, run *result.Run, report func(Progress)) error {
	run.Load = result.Load{} // there is none
	l, err := one.restartLog()
	if err != nil {
		return err
	}
	if !one.Written {
		report(Progress{Phase: "write"})
		storage, err := WriteLog(ctx, one)
		if err != nil {
			return err
		}
		if err := storage.Close(); err != nil {
			return fmt.Errorf("close %s: %w", one.Backend.Label(), err)
		}
	}
	report(Progress{Phase: "restart"})
	peak := env.ResetPeakRSS() == nil
	var st backends.State
	err = one.profiled(func() (err error) {
		st, err = one.restart(ctx, run)
		return err
	})
	if m, memErr := env.RSS(); memErr == nil && peak {
		run.RSS = &m.Peak
	}
	if err != nil {
		return err
	}
	if used, err := env.DiskUsage(one.restartDir()); err == nil {
		run.Bytes = &result.Bytes{Logical: run.Restart.Bytes, Disk: &used}
	}
	report(Progress{Phase: "verify"})
	run.Verified = l.verify(st)
	return nil
}

// restart times Open and the replay. The state is what Open returned.
func (o One) restart(ctx context.Context, run *result.Run) (st backends.State, err error) {
	net, err := o.Networks[o.Transport]()
	if err != nil {
		return st, fmt.Errorf("make the %s network: %w", o.Transport, err)
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	start := time.Now()
	storage, st, err := o.Backend.Open(backends.Options{Dir: o.restartDir()})
	if err != nil {
		return st, fmt.Errorf("open %s in %s: %w", o.Backend.Label(), o.restartDir(), err)
	}
	run.Restart = &result.Restart{
		Open: time.Since(start), Entries: int64(len(st.Entries)), Bytes: entryBytes(st.Entries), Killed: o.Killed,
	}
	run.Chosen = maps.Clone(chosenBy(storage))
	defer func() { err = errors.Join(err, storage.Close()) }()
	if st.HardState.GetCommit() > st.LastIndex() {
		return st, nil // raft would not take it, and verify tells what is lost
	}
	n, err := node.Start(node.Config{
		ID: 1, Peers: []uint64{1}, Storage: storage, State: st, StateMachine: node.NewKV(o.stateKeys()), Network: net,
		Loop: o.Loop, Raft: o.Raft, MaxBatch: o.Batch, SnapshotEntries: neverSnapshot, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return st, err
	}
	defer n.Stop()
	if err := replayed(ctx, n, st.HardState.GetCommit()); err != nil {
		return st, fmt.Errorf("replay %d entries of %s: %w", len(st.Entries), o.Backend.Label(), err)
	}
	run.Restart.Ready = time.Since(start)
	return st, nil
}

// replayed waits until the node has applied everything up to index.
func replayed(ctx context.Context, n *node.Node, index uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restartDeadline, fmt.Errorf("not ready after %v", restartDeadline))
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for n.Status().Applied < index {
		select {
		case <-ticker.C:
		case <-n.Failed():
			return n.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// verify compares what Open returned with what was saved: every Save with entries
// must sync, so all of them were acknowledged.
func (l *restartLog) verify(st backends.State) *result.Verified {
	v := &verifier{payloads: l.payloads}
	v.out.Acked = int64(l.last())
	for index := uint64(1); index <= l.last(); index++ {
		if index > uint64(len(st.Entries)) {
			v.bad(&v.out.Lost, int64(l.last()-index+1), "entries from %d on are gone", index)
			break
		}
		want, err := l.entry(index)
		if err != nil {
			v.bad(&v.out.Wrong, 1, "entry %d: %v", index, err)
			break
		}
		if !proto.Equal(want, st.Entries[index-1]) {
			v.bad(&v.out.Wrong, 1, "entry %d is not the one that was saved", index)
		}
	}
	v.out.OK = v.out.Lost == 0 && v.out.Wrong == 0
	return &v.out
}
