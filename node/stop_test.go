package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// stops are the ways in which a node ends.
var stops = map[string]func(*Node){
	"Stop": func(n *Node) { n.Stop() },
	"Fail": func(n *Node) { n.fail(errors.New("disk on fire")) },
}

// idle is a node of three that hears of no leader, with queues of two.
func idle(t *testing.T, kind RaftKind) *Node {
	d := startDriven(t, kind, 1, 2, 3)
	n := newHarness(false).n
	n.raft, n.raw = d.raft, d.raw
	n.proposals, n.reads = newQueue[*raftpb.Entry](2), newQueue[func(error)](2)
	t.Cleanup(n.Stop)
	return n
}

func poll(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (q *queue[T]) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters > 0
}

// answer is the next of c, which must come.
func answer(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(time.Minute):
		t.Fatal("no answer within a minute")
		return nil
	}
}

// TestStopEndsPropose: who waits for room in the queue is told that the node stopped, and
// so is who comes later.
func TestStopEndsPropose(t *testing.T) {
	for how, stop := range stops {
		for _, kind := range []RaftKind{RaftNode, RaftRawNode} {
			t.Run(how+"/"+string(kind), func(t *testing.T) {
				n := idle(t, kind)
				n.goRun(n.proposeLoop)
				proposed := make(chan error, 2)
				for range cap(proposed) {
					go func() {
						for {
							if err := n.Propose(context.Background(), []byte("x")); err != nil {
								proposed <- err
								return
							}
						}
					}()
				}
				poll(t, "the queue is full", n.proposals.full)
				stop(n)
				for range cap(proposed) {
					if err := answer(t, proposed); !errors.Is(err, ErrStopped) {
						t.Errorf("Propose returned %v, want %v", err, ErrStopped)
					}
				}
				if err := n.Propose(context.Background(), []byte("x")); !errors.Is(err, ErrStopped) {
					t.Errorf("Propose after the end returned %v, want %v", err, ErrStopped)
				}
			})
		}
	}
}

// TestStopEndsReads: every read is answered once, or refused: the one that raft was asked
// for, those that wait behind it, and who waits for room.
func TestStopEndsReads(t *testing.T) {
	for how, stop := range stops {
		t.Run(how, func(t *testing.T) {
			for range 20 { // readLoop may see first that it is to end, or that there are more reads
				n := idle(t, RaftRawNode)
				n.goRun(n.readLoop)
				const reads = 4
				answers, refusals := make(chan error, 2*reads), make(chan error, reads)
				read := func() {
					if err := n.ReadIndex(context.Background(), func(err error) { answers <- err }); err != nil {
						refusals <- err
						answers <- err
					}
				}
				read()
				poll(t, "raft is asked", n.reads.empty)
				for range reads - 1 {
					go read()
				}
				poll(t, "the queue is full", n.reads.full)
				stop(n)
				for range reads {
					if err := answer(t, answers); !errors.Is(err, ErrStopped) {
						t.Errorf("a read ended with %v, want %v", err, ErrStopped)
					}
				}
				n.wg.Wait()
				if more := len(answers); more > 0 || len(refusals) > 1 {
					t.Errorf("%d reads too many were answered, %d refused", more, len(refusals))
				}
			}
		})
	}
}

// answering is a raft whose reads wait for an index that is never applied.
type answering struct {
	*fakeRaft
	n *Node
}

func (a answering) ReadIndex(_ context.Context, rctx []byte) error {
	a.n.readStatec <- raft.ReadState{Index: 9, RequestCtx: rctx}
	return nil
}

// TestStopEndsApplyWait: a read whose index is not applied yet is told that the node
// stopped, by itself too.
func TestStopEndsApplyWait(t *testing.T) {
	for how, stop := range stops {
		t.Run(how, func(t *testing.T) {
			h := newHarness(false)
			h.n.raft, h.n.reads = answering{h.raft, h.n}, newQueue[func(error)](1)
			h.n.goRun(h.n.readLoop)
			t.Cleanup(h.n.Stop)
			answers := make(chan error, 1)
			if err := h.n.ReadIndex(context.Background(), func(err error) { answers <- err }); err != nil {
				t.Fatal(err)
			}
			poll(t, "the read waits for the state machine", func() bool { return h.n.applied.waiters.Load() > 0 })
			stop(h.n)
			if err := answer(t, answers); !errors.Is(err, ErrStopped) {
				t.Errorf("the read ended with %v, want %v", err, ErrStopped)
			}
		})
	}
}
