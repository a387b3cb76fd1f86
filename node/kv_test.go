package node

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func kvEntry(index, id, key uint64) *raftpb.Entry {
	data := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, id), key)
	return &raftpb.Entry{Index: &index, Term: proto.Uint64(1), Data: append(data, "value"...)}
}

func TestKVSnapshot(t *testing.T) {
	a := NewKV(8)
	a.Fill(1, 100, 32)
	a.Apply([]*raftpb.Entry{kvEntry(1, 10, 3), kvEntry(2, 11, 3), kvEntry(3, 12, 99)})
	encode := a.Snapshot()
	a.Apply([]*raftpb.Entry{kvEntry(4, 13, 0)}) // after the capture: not in it
	data, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	b := NewKV(1)
	if err := b.Restore(data); err != nil {
		t.Fatal(err)
	}
	if a.Hash() == b.Hash() {
		t.Error("the capture holds what was applied after it")
	}
	b.Apply([]*raftpb.Entry{kvEntry(4, 13, 0)})
	if a.Hash() != b.Hash() || a.Bytes() != b.Bytes() {
		t.Error("restored state differs")
	}
	if n, _ := b.Applied(); n != 4 {
		t.Errorf("applied %d entries, want 4", n)
	}
}

// TestKVOrder: the chain tells states apart that hold the same values.
func TestKVOrder(t *testing.T) {
	a, b := NewKV(8), NewKV(8)
	a.Apply([]*raftpb.Entry{kvEntry(1, 10, 3), kvEntry(2, 11, 4)})
	b.Apply([]*raftpb.Entry{kvEntry(1, 11, 4), kvEntry(2, 10, 3)})
	if a.Hash() == b.Hash() {
		t.Error("another order gives the same state")
	}
}

func TestKVRestoreDamage(t *testing.T) {
	a := NewKV(8)
	a.Fill(1, 100, 32)
	data := a.encode()
	for i := range data {
		broken := append([]byte(nil), data...)
		broken[i] ^= 1
		if NewKV(1).Restore(broken) == nil {
			t.Fatalf("restored with bit %d flipped", i)
		}
		if NewKV(1).Restore(data[:i]) == nil {
			t.Fatalf("restored the first %d bytes", i)
		}
	}
}

func FuzzKVRestore(f *testing.F) {
	a := NewKV(8)
	a.Fill(1, 100, 32)
	f.Add(a.encode())
	f.Add([]byte(kvMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		kv := NewKV(1)
		if kv.Restore(data) != nil {
			return
		}
		if again := NewKV(1); again.Restore(kv.encode()) != nil || again.Hash() != kv.Hash() {
			t.Error("a restored state does not survive another round")
		}
	})
}

func TestQueue(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	q := newQueue[int](4)
	if err := q.put(ctx, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 2)
	for i := range 2 {
		go func() { blocked <- q.put(ctx, 4+i, 6+i) }()
	}
	seen := 0
	deadline := time.After(time.Minute)
	for seen < 7 {
		taken := make(chan []int, 1)
		go func() { taken <- q.take(ctx) }()
		select {
		case got := <-taken:
			seen += len(got)
		case <-deadline:
			t.Fatalf("took %d items of 7", seen)
		}
	}
	for range 2 {
		if err := <-blocked; err != nil {
			t.Error(err)
		}
	}
	if err := q.put(ctx, 1, 2, 3, 4); err != nil {
		t.Fatal(err)
	}
	go func() { blocked <- q.put(ctx, 5) }()
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("put into a full queue that ended: %v", err)
	}
}

// TestQueueEnd: what was added comes out, and nothing is added any more, though there is
// room; who waited for it is told.
func TestQueueEnd(t *testing.T) {
	q := newQueue[int](2)
	if err := q.put(context.Background(), 1, 2); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() { blocked <- q.put(context.Background(), 3) }()
	poll(t, "put waits for room", q.full)
	if got := q.end(); len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Errorf("the end returned %v, want what waited", got)
	}
	for range 2 {
		if err := answer(t, blocked); !errors.Is(err, ErrStopped) {
			t.Errorf("put returned %v, want %v", err, ErrStopped)
		}
		blocked <- q.put(context.Background(), 4)
	}
	if !q.empty() {
		t.Error("something was added after the end")
	}
}
