package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing/iotest"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
)

// streamsSnapshots asks nothing of a transport that is no node.SnapshotSender.
func streamsSnapshots(c *cluster) {
	ms := c.joinAll(2)
	sender, ok := ms[0].tr.(node.SnapshotSender)
	if !ok {
		return
	}
	var want2, want9 snapshotReports
	stream := func(what string, to, index uint64, data io.Reader, size int, want *snapshotReports) {
		c.t.Helper()
		body := &closing{Reader: data}
		sender.SendSnapshot(snapshot(to, index, nil), body, int64(size))
		c.eventually(fmt.Sprintf("%s: %+v reported, and the stream closed", what, *want), func() bool {
			got := ms[0].snapshotCount(to)
			if got.finished > want.finished || got.failed > want.failed {
				c.fatalf("%s: %+v reported, want %+v", what, got, *want)
			}
			return got == *want && body.closed.Load()
		})
	}
	index := uint64(0)
	for _, size := range []int{0, 1, 1<<20 - 1, 1<<20 + 1, 16<<20 + 3} {
		index++
		data := payload(size)
		want2.finished++
		stream(fmt.Sprintf("a stream of %d bytes", size), 2, index, bytes.NewReader(data), size, &want2)
		got := ms[1].received(raftpb.MsgSnap)
		if len(got) != 1 {
			c.fatalf("a stream was taken: %d snapshots have arrived, want 1", len(got))
		}
		checkPayload(c, "streamed snapshot", got[0].GetSnapshot().GetData(), data)
		if i := got[0].GetSnapshot().GetMetadata().GetIndex(); i != index {
			c.fatalf("snapshot %d was sent, %d has arrived", index, i)
		}
		ms[1].forget()
	}
	const size = 3 << 20
	data := payload(size)
	want9.failed++
	stream("a stream to a node that is not there", 9, 1, bytes.NewReader(data), size, &want9)
	want2.failed++
	stream("a stream that fails", 2, 100, io.MultiReader(bytes.NewReader(data[:size/2]), iotest.ErrReader(errors.New("bad disk"))), size, &want2)
	want2.failed++
	ms[1].setHandle(func(context.Context, *raftpb.Message) error { return errors.New("no, thank you") })
	stream("a stream that is refused", 2, 101, bytes.NewReader(data), size, &want2)
	ms[1].setHandle(nil)
	if n := len(ms[1].received(raftpb.MsgSnap)); n > 1 { // the refused one
		c.fatalf("%d snapshots have arrived of two that failed", n)
	}
	want2.finished++
	stream("a stream after those", 2, 102, bytes.NewReader(data), size, &want2)
}

type closing struct {
	io.Reader
	closed atomic.Bool
}

func (r *closing) Close() error {
	r.closed.Store(true)
	return nil
}
