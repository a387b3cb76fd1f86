package transporttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
)

// Bench measures what a network costs, between two nodes of this process:
//
//   - roundtrip: one heartbeat and its answer at a time; ns/op is the round trip.
//   - append/entries=N: MsgApps of N entries of 1 KiB, 64 on their way at a time;
//     one operation is one message.
//   - snapshot: a stream of 64 MiB that the receiver throws away; only where the
//     transport takes streams.
//
// Besides the time it reports cpu-ns/op, the CPU time of the whole process (both
// ends, garbage collection included, see getrusage(2)), and wire-B/op, what the
// sender says it sent.
func Bench(b *testing.B, open func(t testing.TB) node.Network) {
	b.Run("roundtrip", func(b *testing.B) { benchRoundTrip(b, open(b)) })
	for _, n := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("append/entries=%d", n), func(b *testing.B) { benchAppend(b, open(b), n) })
	}
	b.Run("snapshot", func(b *testing.B) { benchSnapshot(b, open(b)) })
}

// benchNode hands each message to a function.
type benchNode func(m *raftpb.Message)

func (f benchNode) Process(_ context.Context, m *raftpb.Message) error { f(m); return nil }
func (benchNode) ReportUnreachable(uint64)                             {}
func (benchNode) ReportSnapshot(uint64, raft.SnapshotStatus)           {}

func benchRoundTrip(b *testing.B, net node.Network) {
	answers := make(chan struct{}, 1024)
	var echo node.Transport
	ready := make(chan struct{})
	sender := joinBench(b, net, 1, func(m *raftpb.Message) { answers <- struct{}{} })
	echo = joinBench(b, net, 2, func(m *raftpb.Message) {
		<-ready
		echo.Send([]*raftpb.Message{{Type: raftpb.MsgHeartbeatResp.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(1))}})
	})
	close(ready)
	ask := func() {
		sender.Send([]*raftpb.Message{{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(1))}})
	}
	warm(b, net, ask, answers)
	measure(b, sender, func() {
		for range b.N {
			ask()
			<-answers
		}
	})
	closeBench(b, net, sender, echo)
}

func benchAppend(b *testing.B, net node.Network, entries int) {
	taken := make(chan struct{}, 1024)
	receiver := joinBench(b, net, 2, func(m *raftpb.Message) { taken <- struct{}{} })
	sender := joinBench(b, net, 1, func(*raftpb.Message) {})
	data := payload(1 << 10)
	ents := make([]*raftpb.Entry, entries)
	next := uint64(1)
	send := func() {
		for i := range ents {
			ents[i] = &raftpb.Entry{Term: new(uint64(1)), Index: new(next + uint64(i)), Data: data}
		}
		sender.Send([]*raftpb.Message{{Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(1)),
			LogTerm: new(uint64(1)), Index: new(next - 1), Commit: new(next - 1), Entries: ents}})
		next += uint64(entries)
	}
	warm(b, net, send, taken)
	measure(b, sender, func() {
		const underway = 64
		sent := 0
		for ; sent < b.N && sent < underway; sent++ {
			send()
		}
		for taking := 0; taking < b.N; taking++ {
			<-taken
			if sent < b.N {
				send()
				sent++
			}
		}
	})
	closeBench(b, net, sender, receiver)
}

const benchSnapshotBytes = 64 << 20

// benchStream is a benchNode that throws streams away.
type benchStream struct{ benchNode }

func (s benchStream) ProcessSnapshot(_ context.Context, m *raftpb.Message, data io.Reader, _ int64) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, data, make([]byte, 1<<20))
	s.benchNode(m)
	return err
}

// benchState is benchSnapshotBytes of the same payload again and again.
func benchState(payload []byte) io.ReadCloser {
	parts := make([]io.Reader, benchSnapshotBytes/len(payload))
	for i := range parts {
		parts[i] = bytes.NewReader(payload)
	}
	return io.NopCloser(io.MultiReader(parts...))
}

func benchSnapshot(b *testing.B, net node.Network) {
	taken := make(chan struct{}, 1024)
	receiver, err := net.Join(2, benchStream{func(*raftpb.Message) { taken <- struct{}{} }})
	if err != nil {
		b.Fatal(err)
	}
	sender := joinBench(b, net, 1, func(*raftpb.Message) {})
	defer closeBench(b, net, sender, receiver)
	streams, ok := sender.(node.SnapshotSender)
	if !ok {
		b.Skip("the transport takes no streams")
	}
	data := payload(1 << 20)
	send := func() {
		streams.SendSnapshot(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(1)),
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(1))}}}, benchState(data), benchSnapshotBytes)
	}
	warm(b, net, send, taken)
	b.SetBytes(benchSnapshotBytes)
	measure(b, sender, func() {
		for range b.N {
			send()
			<-taken
		}
	})
}

// warm sends until answers come, then waits until all have: from then on each
// send has one answer.
func warm(b *testing.B, net node.Network, send func(), answers chan struct{}) {
	b.Helper()
	if s, ok := net.(Settler); ok {
		for deadline := time.Now().Add(patience); !s.Settled(1, 2) || !s.Settled(2, 1); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatal("the links do not settle")
			}
		}
	}
	for deadline := time.Now().Add(patience); len(answers) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("nothing arrives")
		}
		send()
	}
	for quiet := 0; quiet < 20; time.Sleep(5 * time.Millisecond) {
		quiet++
		for len(answers) > 0 {
			<-answers
			quiet = 0
		}
	}
}

func measure(b *testing.B, sender node.Transport, run func()) {
	b.Helper()
	b.ReportAllocs()
	runtime.GC()
	bytesBefore, cpuBefore := sentBytes(sender), cpuTime(b)
	b.ResetTimer()
	run()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-cpuBefore)/float64(b.N), "cpu-ns/op")
	if bytes := sentBytes(sender) - bytesBefore; bytes > 0 {
		b.ReportMetric(float64(bytes)/float64(b.N), "wire-B/op")
	}
}

func sentBytes(t node.Transport) int64 {
	if s, ok := t.(node.StatsReporter); ok {
		return s.Stats().Bytes
	}
	return 0
}

// cpuTime is the user and system time of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatalf("getrusage: %v", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func joinBench(b *testing.B, net node.Network, id uint64, f benchNode) node.Transport {
	b.Helper()
	t, err := net.Join(id, f)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

func closeBench(b *testing.B, net node.Network, ts ...node.Transport) {
	b.Helper()
	for _, t := range ts {
		if err := t.Close(); err != nil {
			b.Error(err)
		}
	}
	if err := net.Close(); err != nil {
		b.Error(err)
	}
}
