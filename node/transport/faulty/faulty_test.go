package faulty

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/grpc"
	"github.com/raftbench/raftbench/node/transport/mem"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// With and without faults that lose nothing, the contract holds.
func TestTransport(t *testing.T) {
	healthy := func(*Network) {}
	slow := func(n *Network) { n.SetDelay(time.Millisecond, time.Millisecond) }
	narrow := func(n *Network) { n.SetRate(4 << 30) }
	for _, c := range []struct {
		name  string
		inner func() node.Network
		fault func(*Network)
	}{
		{"mem", func() node.Network { return mem.New(mem.Options{}) }, healthy},
		{"mem-delay", func() node.Network { return mem.New(mem.Options{}) }, slow},
		{"mem-rate", func() node.Network { return mem.New(mem.Options{}) }, narrow},
		{"grpc-delay", func() node.Network { return grpc.New(grpc.Options{}) }, slow},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range transporttest.Cases() {
				if k.Name == "Sizes" && c.name != "mem-delay" {
					continue // payloads are not touched here
				}
				t.Run(k.Name, func(t *testing.T) {
					k.Check(t, func(testing.TB) node.Network {
						n := Wrap(c.inner(), 1)
						c.fault(n)
						return n
					})
				})
			}
		})
	}
}

func BenchmarkTransport(b *testing.B) {
	for _, used := range []bool{false, true} {
		b.Run(fmt.Sprintf("used=%t", used), func(b *testing.B) {
			transporttest.Bench(b, func(testing.TB) node.Network {
				n := Wrap(mem.New(mem.Options{}), 1)
				if used {
					n.Heal()
				}
				return n
			})
		})
	}
}

// arrival is a message and when it came, counted from the start of the test.
type arrival struct {
	index uint64
	at    time.Duration
}

// probe is a node that records what it gets.
type probe struct {
	id    uint64
	tr    node.Transport
	start time.Time
	gate  chan struct{} // if not nil, Process waits for it

	mu                            sync.Mutex
	got                           []arrival
	unreachable, finished, failed int
}

func (p *probe) Process(ctx context.Context, m *raftpb.Message) error {
	if p.gate != nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, arrival{m.GetIndex(), time.Since(p.start)})
	return nil
}

func (p *probe) ReportUnreachable(uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unreachable++
}

func (p *probe) ReportSnapshot(_ uint64, s raft.SnapshotStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == raft.SnapshotFinish {
		p.finished++
	} else {
		p.failed++
	}
}

func (p *probe) send(to uint64, indexes ...uint64) {
	for _, i := range indexes {
		p.tr.Send([]*raftpb.Message{{Type: raftpb.MsgApp.Enum(), To: &to, From: &p.id, Term: new(uint64(1)), Index: &i}})
	}
}

func (p *probe) sendBytes(to, index uint64, n int) {
	p.tr.Send([]*raftpb.Message{{Type: raftpb.MsgApp.Enum(), To: &to, From: &p.id, Index: &index,
		Entries: []*raftpb.Entry{{Data: make([]byte, n)}}}})
}

func (p *probe) sendSnapshot(to uint64) {
	p.tr.Send([]*raftpb.Message{{Type: raftpb.MsgSnap.Enum(), To: &to, From: &p.id, Snapshot: &raftpb.Snapshot{}}})
}

// received takes what arrived so far.
func (p *probe) received() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func indexes(got []arrival) []uint64 {
	var out []uint64
	for _, a := range got {
		out = append(out, a.index)
	}
	return out
}

// inBubble runs f on a network of n nodes (over mem) with a clock of its own, which
// runs only while all wait: synctest.Wait lets everything happen that is due now.
func inBubble(t *testing.T, n int, f func(net *Network, nodes []*probe)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := Wrap(mem.New(mem.Options{MaxMessages: 1 << 20}), 1)
		nodes := make([]*probe, n+1) // [0] is none
		for id := 1; id <= n; id++ {
			nodes[id] = join(t, net, uint64(id))
		}
		f(net, nodes)
		for _, p := range nodes[1:] {
			if err := p.tr.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
}

func join(t *testing.T, net *Network, id uint64) *probe {
	t.Helper()
	p := &probe{id: id, start: time.Now()}
	tr, err := net.Join(id, p)
	if err != nil {
		t.Fatal(err)
	}
	p.tr = tr
	return p
}

func expect(t *testing.T, what string, p *probe, want ...uint64) {
	t.Helper()
	synctest.Wait()
	if got := indexes(p.received()); !reflect.DeepEqual(got, want) {
		t.Errorf("%s: node %d received %v, want %v", what, p.id, got, want)
	}
}

func expectReports(t *testing.T, p *probe, unreachable bool, finished, failed int) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if (p.unreachable > 0) != unreachable || p.finished != finished || p.failed != failed {
		t.Errorf("node %d was told %d times that a peer is unreachable (want any: %t), of %d snapshots finished and %d failed, want %d and %d",
			p.id, p.unreachable, unreachable, p.finished, p.failed, finished, failed)
	}
}

func TestCut(t *testing.T) {
	inBubble(t, 3, func(net *Network, n []*probe) {
		net.Cut(Between(Nodes(1), Nodes(2, 3)))
		n[1].send(2, 1)
		n[1].send(3, 2)
		n[2].send(1, 3)
		n[2].send(3, 4)
		n[1].sendSnapshot(2)
		expect(t, "cut off", n[1])
		expect(t, "cut from 1", n[2])
		expect(t, "cut from 1", n[3], 4)
		expectReports(t, n[1], true, 0, 1)
		expectReports(t, n[2], true, 0, 0)
		expectReports(t, n[3], false, 0, 0)

		net.Heal(Between(Nodes(1), Nodes(2)))
		n[1].send(2, 5)
		n[2].send(1, 6)
		n[1].send(3, 7)
		n[1].sendSnapshot(2)
		expect(t, "one link healed", n[1], 6)
		expect(t, "one link healed", n[2], 5, 0)
		expect(t, "one link healed", n[3])
		expectReports(t, n[1], true, 1, 1)

		net.Heal()
		n[1].send(3, 8)
		expect(t, "all healed", n[3], 8)
	})
}

func TestCutOneWay(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.Cut(OneWay(Nodes(1), Nodes(2)))
		n[1].send(2, 1)
		n[2].send(1, 2)
		expect(t, "the way that is cut", n[2])
		expect(t, "the way back", n[1], 2)
	})
}

// What waits in a delay line, and what the wrapped transport has not yet delivered, is
// lost at a cut.
func TestCutDropsWhatIsUnderWay(t *testing.T) {
	inBubble(t, 3, func(net *Network, n []*probe) {
		net.SetDelay(time.Second, 0, OneWay(Nodes(1), Nodes(2)))
		n[1].send(2, 1, 2)
		n[1].sendSnapshot(2)
		n[3].gate = make(chan struct{})
		n[1].send(3, 3, 4, 5) // 3 is with the node, 4 and 5 queue behind it
		synctest.Wait()
		net.Cut(Between(Nodes(1), AllNodes))
		close(n[3].gate)
		expect(t, "behind a stuck message", n[3], 3)
		expectReports(t, n[1], true, 0, 1)
		net.Heal() // before the delay is over
		time.Sleep(time.Minute)
		expect(t, "in a delay line", n[2])
		n[1].send(2, 6)
		expect(t, "after the heal, without delay", n[2], 6)
	})
}

// A fault holds for nodes that join, or join again, later.
func TestFaultOutlivesNodes(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.Cut(Between(Nodes(1), AllNodes))
		if err := n[2].tr.Close(); err != nil {
			t.Fatal(err)
		}
		n[2] = join(t, net, 2)
		four := join(t, net, 4)
		n[1].send(2, 1)
		n[1].send(4, 2)
		n[2].send(4, 3)
		expect(t, "joined again", n[2])
		expect(t, "joined later", four, 3)
		net.Heal()
		five := join(t, net, 5)
		n[1].send(5, 4)
		expect(t, "joined after the heal", five, 4)
		if err := errors.Join(four.tr.Close(), five.tr.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDelay(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.SetDelay(10*time.Millisecond, 0, OneWay(Nodes(1), Nodes(2)))
		n[1].send(2, 1)
		time.Sleep(4 * time.Millisecond)
		n[1].send(2, 2)
		n[2].send(1, 3)
		expect(t, "the way back", n[1], 3)
		time.Sleep(time.Second)
		want := []arrival{{1, 10 * time.Millisecond}, {2, 14 * time.Millisecond}}
		if got := n[2].received(); !reflect.DeepEqual(got, want) {
			t.Errorf("received %v, want %v", got, want)
		}
		// What is under way keeps its time, and what follows does not overtake it.
		n[1].send(2, 4)
		net.Heal()
		n[1].send(2, 5)
		expect(t, "at the heal", n[2])
		time.Sleep(10 * time.Millisecond)
		expect(t, "10 ms later", n[2], 4, 5)
		n[1].send(2, 6)
		expect(t, "healed", n[2], 6)
	})
}

// Jitter spreads over its whole width, never changes the order, and is drawn from the
// seed.
func TestJitter(t *testing.T) {
	const delay, jitter, count = 100 * time.Millisecond, 50 * time.Millisecond, 1000
	run := func() (got []arrival) {
		inBubble(t, 2, func(net *Network, n []*probe) {
			net.SetDelay(delay, jitter)
			for i := range uint64(count) {
				n[1].send(2, i)
				time.Sleep(2 * jitter) // far enough apart not to hold each other up
			}
			time.Sleep(time.Second)
			got = n[2].received()
		})
		return got
	}
	got := run()
	if len(got) != count {
		t.Fatalf("%d of %d messages arrived", len(got), count)
	}
	least, most := time.Hour, time.Duration(0)
	for i, a := range got {
		if a.index != uint64(i) {
			t.Fatalf("message %d arrived in place %d", a.index, i)
		}
		d := a.at - time.Duration(i)*2*jitter
		least, most = min(least, d), max(most, d)
	}
	if least < delay-jitter || least > delay-jitter*9/10 || most > delay+jitter || most < delay+jitter*9/10 {
		t.Errorf("the delays lie between %v and %v, want most of %v±%v", least, most, delay, jitter)
	}
	if again := run(); !reflect.DeepEqual(again, got) {
		t.Error("the same seed gave other delays")
	}
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.SetDelay(delay, jitter)
		var want []uint64
		for i := range uint64(count) {
			n[1].send(2, i)
			want = append(want, i)
		}
		time.Sleep(time.Second)
		expect(t, "sent at the same time", n[2], want...)
	})
}

func TestLoss(t *testing.T) {
	const count = 10000
	run := func(seed int64, from uint64) (got []uint64) {
		synctest.Test(t, func(t *testing.T) {
			net := Wrap(mem.New(mem.Options{MaxMessages: count}), seed)
			a, b := join(t, net, from), join(t, net, 9)
			net.SetLoss(0.3)
			for i := range uint64(count) {
				a.send(9, i)
			}
			synctest.Wait()
			got = indexes(b.received())
			expectReports(t, a, false, 0, 0)
			if s := a.tr.(node.StatsReporter).Stats(); s.Dropped != int64(count-len(got)) {
				t.Errorf("%d messages are missing, %d are counted", count-len(got), s.Dropped)
			}
			if err := errors.Join(a.tr.Close(), b.tr.Close(), net.Close()); err != nil {
				t.Error(err)
			}
		})
		return got
	}
	got := run(1, 1)
	// 7000 ± 46; ten standard deviations.
	if len(got) < 6540 || len(got) > 7460 {
		t.Errorf("with 30 %% loss, %d of %d messages arrived", len(got), count)
	}
	if !reflect.DeepEqual(run(1, 1), got) {
		t.Error("the same seed lost others")
	}
	if reflect.DeepEqual(run(2, 1), got) {
		t.Error("another seed lost the same")
	}
	if reflect.DeepEqual(run(1, 2), got) {
		t.Error("another link lost the same")
	}
}

// raft waits for the end of a snapshot, so a lost one is reported.
func TestLossOfSnapshots(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.SetLoss(1)
		n[1].send(2, 1)
		n[1].sendSnapshot(2)
		expect(t, "all lost", n[2])
		expectReports(t, n[1], false, 0, 1)
	})
}

func TestRate(t *testing.T) {
	inBubble(t, 3, func(net *Network, n []*probe) {
		net.SetRate(1000, OneWay(Nodes(1), AllNodes))
		net.SetDelay(time.Second, 0, OneWay(Nodes(1), Nodes(2)))
		for i := range uint64(3) {
			n[1].sendBytes(2, i, 500-overheadBytes)
		}
		n[1].sendBytes(3, 9, 1000-overheadBytes) // links do not share their rate
		time.Sleep(time.Minute)
		second := time.Second
		want := []arrival{{0, second * 3 / 2}, {1, second * 2}, {2, second * 5 / 2}}
		if got := n[2].received(); !reflect.DeepEqual(got, want) {
			t.Errorf("received %v, want %v", got, want)
		}
		if got := n[3].received(); !reflect.DeepEqual(got, []arrival{{9, second}}) {
			t.Errorf("received %v, want message 9 after 1s", got)
		}
		// An idle link saves nothing up.
		n[1].sendBytes(3, 10, 1000-overheadBytes)
		expect(t, "at once", n[3])
		time.Sleep(second)
		expect(t, "a second later", n[3], 10)
	})
}

func TestStall(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		n[1].send(2, 1)
		net.Stall(OneWay(Nodes(1), Nodes(2)))
		n[1].send(2, 2, 3)
		n[2].send(1, 4)
		time.Sleep(time.Hour)
		expect(t, "the way back", n[1], 4)
		expect(t, "stalled", n[2], 1)
		net.Heal()
		n[1].send(2, 5)
		expect(t, "healed", n[2], 2, 3, 5)
		expectReports(t, n[1], false, 0, 0)
	})
}

// A stalled link fills up to its bounds, of messages and of bytes, and says what it
// dropped; one message passes whatever its size.
func TestBounds(t *testing.T) {
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.Stall(OneWay(Nodes(1), Nodes(2)))
		for i := range uint64(maxMessages) {
			n[1].send(2, i)
		}
		expectReports(t, n[1], false, 0, 0)
		n[1].send(2, maxMessages)
		n[1].sendSnapshot(2)
		expectReports(t, n[1], true, 0, 1)
		net.Heal()
		synctest.Wait()
		if got := n[2].received(); len(got) != maxMessages || got[maxMessages-1].index != maxMessages-1 {
			t.Errorf("%d messages arrived, want %d", len(got), maxMessages)
		}
	})
	inBubble(t, 2, func(net *Network, n []*probe) {
		net.Stall(OneWay(Nodes(1), Nodes(2)))
		n[1].sendBytes(2, 1, maxBytes+1)
		n[1].sendBytes(2, 2, 1)
		expectReports(t, n[1], true, 0, 0)
		net.Heal()
		expect(t, "healed", n[2], 1)
	})
}

// gated is a network whose transports hold each message 1 back in Send.
type gated struct {
	node.Network
	gate chan struct{}
}

type gatedTransport struct {
	node.Transport
	gate chan struct{}
}

func (g gated) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := g.Network.Join(id, r)
	return gatedTransport{t, g.gate}, err
}

func (g gatedTransport) Send(msgs []*raftpb.Message) {
	if msgs[0].GetIndex() == 1 {
		<-g.gate
	}
	g.Transport.Send(msgs)
}

// A message that is just leaving the delay line is not overtaken by one that needs no
// delay.
func TestHandingOverKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		net := Wrap(gated{mem.New(mem.Options{}), gate}, 1)
		a, b := join(t, net, 1), join(t, net, 2)
		net.SetDelay(time.Millisecond, 0)
		a.send(2, 1)
		time.Sleep(2 * time.Millisecond)
		net.Heal()
		a.send(2, 2)
		synctest.Wait()
		close(gate)
		expect(t, "let go", b, 1, 2)
		if err := errors.Join(a.tr.Close(), b.tr.Close(), net.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestPlay(t *testing.T) {
	inBubble(t, 3, func(net *Network, n []*probe) {
		tl, err := Parse("at 10s: cut leader-*; at 20s: heal; at 30s: stall 1>2")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		leader := func() uint64 { // nobody leads from 5 to 12 s
			if time.Since(start) < 12*time.Second {
				return 0
			}
			return 2
		}
		type event struct {
			what string
			at   time.Duration
		}
		var events []event
		done := make(chan error)
		go func() {
			done <- net.Play(context.Background(), tl, start, leader, func(e Event, at time.Duration) {
				events = append(events, event{e.Fault.String(), at})
			})
		}()
		time.Sleep(11 * time.Second)
		n[2].send(1, 1)
		expect(t, "before there is a leader to cut off", n[1], 1)
		time.Sleep(4 * time.Second)
		n[2].send(1, 2)
		n[3].send(1, 3)
		expect(t, "leader cut off", n[1], 3)
		time.Sleep(10 * time.Second)
		n[2].send(1, 4)
		expect(t, "healed", n[1], 4)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []event{{"cut leader-*", 12 * time.Second}, {"heal", 20 * time.Second}, {"stall 1>2", 30 * time.Second}}
		if !reflect.DeepEqual(events, want) {
			t.Errorf("applied %v, want %v", events, want)
		}
	})
}

func TestPlayEnds(t *testing.T) {
	inBubble(t, 1, func(net *Network, _ []*probe) {
		for _, text := range []string{"at 1h: heal", "at 0s: cut leader-*"} {
			tl, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err = net.Play(ctx, tl, time.Now(), func() uint64 { return 0 }, nil)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v, want %v", text, err, context.DeadlineExceeded)
			}
		}
	})
}

// Changing conditions while all send and some close neither races nor deadlocks.
func TestChangesDuringTraffic(t *testing.T) {
	net := Wrap(mem.New(mem.Options{}), 1)
	var nodes []*probe
	for id := range uint64(3) {
		nodes = append(nodes, join(t, net, id+1))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, p := range nodes {
		wg.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					p.send(i%3+1, i)
					p.sendSnapshot((i+1)%3 + 1)
				}
			}
		})
	}
	links := Between(Nodes(1), Nodes(2, 3))
	for range 50 {
		net.Cut(links)
		net.SetDelay(time.Millisecond, time.Millisecond, links)
		net.Heal(links)
		net.Stall()
		net.SetLoss(0.5)
		net.SetRate(1 << 20)
		net.Heal()
	}
	for _, p := range nodes {
		if err := p.tr.Close(); err != nil {
			t.Error(err)
		}
		net.Cut()
		net.Heal()
	}
	close(stop)
	wg.Wait()
	if err := net.Close(); err != nil {
		t.Error(err)
	}
}
