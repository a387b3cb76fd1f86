package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/raftbench/raftbench/node/transport/faulty"
)

// nemesis makes one fault after the other. What it does follows from the seed; who
// leads at that moment does not.
type nemesis struct {
	c   *cluster
	rng *rand.Rand
	log []string // what was done, and when
	t0  time.Time
}

// fault begins something and says what; mend undoes all there is to undo.
type fault func(n *nemesis) string

// faults are all kinds.
var faults = []fault{
	// A minority, with or without the leader, is on its own.
	func(n *nemesis) string {
		some := n.minority()
		return n.apply(faulty.Fault{Kind: faulty.Cut, Links: []faulty.LinkSet{faulty.Between(faulty.Nodes(some...), faulty.Nodes(n.others(some)...))}})
	},
	// The leader hears the others and is not heard.
	func(n *nemesis) string {
		lead := n.victim()
		return n.apply(faulty.Fault{Kind: faulty.Cut, Links: []faulty.LinkSet{faulty.OneWay(faulty.Nodes(lead), faulty.AllNodes)}})
	},
	// The leader is heard and does not hear.
	func(n *nemesis) string {
		lead := n.victim()
		return n.apply(faulty.Fault{Kind: faulty.Cut, Links: []faulty.LinkSet{faulty.OneWay(faulty.AllNodes, faulty.Nodes(lead))}})
	},
	// One link is cut: two nodes that see the others, but not each other.
	func(n *nemesis) string {
		a, b := n.victim(), n.anyNode()
		return n.apply(faulty.Fault{Kind: faulty.Cut, Links: []faulty.LinkSet{faulty.Between(faulty.Nodes(a), faulty.Nodes(b))}})
	},
	// What the leader sends arrives all at once, much later.
	func(n *nemesis) string {
		return n.apply(faulty.Fault{Kind: faulty.Stall, Links: []faulty.LinkSet{faulty.OneWay(faulty.Nodes(n.victim()), faulty.AllNodes)}})
	},
	func(n *nemesis) string { return n.kill(n.victim()) },
	func(n *nemesis) string { return n.kill(n.anyNode()) },
	// A leader that is killed while it saves, and messages of its old life under way.
	func(n *nemesis) string {
		lead := n.victim()
		n.c.disks.slow(lead, 5*time.Millisecond)
		what := n.apply(faulty.Fault{Kind: faulty.Delay, Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond})
		n.pause(60 * time.Millisecond)
		return what + ", slow disk, " + n.kill(lead)
	},
	powerCut,
	// A slow, thin line to one node.
	func(n *nemesis) string {
		links := []faulty.LinkSet{faulty.Between(faulty.Nodes(n.anyNode()), faulty.AllNodes)}
		what := n.apply(faulty.Fault{Kind: faulty.Delay, Delay: 25 * time.Millisecond, Links: links})
		return what + ", " + n.apply(faulty.Fault{Kind: faulty.Rate, Rate: 20 << 10, Links: links})
	},
	func(n *nemesis) string {
		return n.apply(faulty.Fault{Kind: faulty.Loss, Loss: 0.05 + 0.3*n.rng.Float64()})
	},
	func(n *nemesis) string {
		return n.apply(faulty.Fault{Kind: faulty.Delay, Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond})
	},
	// Messages are lost while the leader is killed.
	func(n *nemesis) string {
		what := n.apply(faulty.Fault{Kind: faulty.Loss, Loss: 0.2})
		return what + ", " + n.kill(n.victim())
	},
	func(n *nemesis) string {
		to := n.anyNode()
		if lead := n.c.leader(); lead != nil {
			lead.n.TransferLeadership(context.Background(), to)
		}
		return fmt.Sprintf("transfer the leadership to %d", to)
	},
	func(n *nemesis) string {
		id := n.victim()
		n.c.disks.slow(id, 20*time.Millisecond)
		return fmt.Sprintf("slow disk of %d", id)
	},
}

// powerCut takes the power from all nodes.
func powerCut(n *nemesis) string { return n.kill(n.c.ids...) }

// run makes count faults of those given, in an order that follows from the seed.
// Each lasts, is mended, and is followed by some calm.
func (n *nemesis) run(of []fault, count int, lasts time.Duration) error {
	n.pause(lasts / 2)
	for i := range count {
		if i%len(of) == 0 {
			n.rng.Shuffle(len(of), func(a, b int) { of[a], of[b] = of[b], of[a] })
		}
		n.c.disks.writeBack()
		d := lasts/2 + time.Duration(n.rng.Int64N(int64(lasts)))
		if len(of) == 1 {
			n.pause(lasts / 2) // let the load go on since the write-back
		}
		n.note(of[i%len(of)](n))
		n.pause(d)
		if err := n.mend(); err != nil {
			return err
		}
		n.pause(lasts/4 + time.Duration(n.rng.Int64N(int64(lasts/2))))
	}
	return nil
}

func (n *nemesis) note(what string) {
	n.log = append(n.log, fmt.Sprintf("%8v  %s", time.Since(n.t0).Round(time.Millisecond), what))
}

// pause is how the faults are spread over time.
func (n *nemesis) pause(d time.Duration) { time.Sleep(d) }

// mend heals all links, makes all disks fast and starts all nodes.
func (n *nemesis) mend() error {
	n.c.net.Heal()
	for _, id := range n.c.ids {
		n.c.disks.slow(id, 0)
	}
	n.note("mend")
	return n.c.startAll()
}

func (n *nemesis) apply(f faulty.Fault) string {
	n.c.net.Apply(f, 0)
	return f.String()
}

func (n *nemesis) kill(ids ...uint64) string {
	n.c.kill(ids...)
	return fmt.Sprintf("kill %v", ids)
}

// victim is the leader; a seeded other node where nobody leads.
func (n *nemesis) victim() uint64 {
	id := n.anyNode() // always drawn: what follows must not depend on who leads
	if lead := n.c.leader(); lead != nil {
		return lead.id
	}
	return id
}

func (n *nemesis) anyNode() uint64 { return n.c.ids[n.rng.IntN(len(n.c.ids))] }

// minority is one node of three, one or two of five, the leader among them every
// other time.
func (n *nemesis) minority() []uint64 {
	size := 1 + n.rng.IntN((len(n.c.ids)-1)/2)
	start, withLeader := n.rng.IntN(len(n.c.ids)), n.rng.IntN(2) == 0
	lead := n.victim()
	if withLeader {
		start = int(lead - 1)
	}
	var ids []uint64
	for i := range size {
		ids = append(ids, n.c.ids[(start+i)%len(n.c.ids)])
	}
	return ids
}

func (n *nemesis) others(than []uint64) []uint64 {
	var ids []uint64
	for _, id := range n.c.ids {
		in := false
		for _, t := range than {
			in = in || t == id
		}
		if !in {
			ids = append(ids, id)
		}
	}
	return ids
}
