// Package torture runs clusters under faults and judges what their clients saw.
//
// A round is a cluster of three or five nodes on a network that is cut, also one
// way, stalled, slow and lossy, with leaders and whole clusters killed and started
// from what their disks had synced. Six clients write and read three registers
// through any node. In the end, everything healed:
//
//   - the history of the registers is linearizable (porcupine decides);
//   - every acknowledged write stands, on every node, at the index and in the term
//     in which it was acknowledged, once;
//   - no term had two leaders, neither by what nodes said nor by what they sent;
//   - no node stopped by itself, and the cluster works again.
//
// The faults and the operations of a round follow from its seed; what the
// scheduler does between them does not. A few short rounds are part of every test
// run. `make torture` makes fifty long ones for each loop and way to drive raft:
//
//	RAFTBENCH_TORTURE=50 go test ./node/torture -run 'TestTorture$' -v
//	RAFTBENCH_TORTURE_SEED=17 go test ./node/torture -run 'TestTorture$/async' -v -count 20
package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errNotLinearizable = errors.New("the history is not linearizable")
	errLost            = errors.New("an acknowledged write is lost")
	errTwoLeaders      = errors.New("two leaders in term")
)

// What a round can have broken on purpose.
const (
	localReads = "reads served without ReadIndex"
	lyingDisks = "disks that acknowledge before they save"
)

// drive is a loop, and what it runs raft with.
type drive struct {
	loop node.LoopKind
	raft node.RaftKind
}

func (d drive) String() string { return fmt.Sprintf("%s-%s", d.loop, d.raft) }

// drives are all.
var drives = []drive{
	{node.LoopReady, node.RaftNode}, {node.LoopAsync, node.RaftNode},
	{node.LoopReady, node.RaftRawNode}, {node.LoopAsync, node.RaftRawNode},
}

// round is one cluster and its faults.
type round struct {
	seed   int64
	nodes  int
	drive  drive
	faults int
	lasts  time.Duration // about, each fault
	broken string
}

// short is a round of about a second and a half; long takes about eight.
func short(seed int64, d drive) round {
	return round{seed: seed, nodes: nodesOf(seed), drive: d, faults: 3, lasts: 250 * time.Millisecond}
}

func long(seed int64, d drive) round {
	return round{seed: seed, nodes: nodesOf(seed), drive: d, faults: 10, lasts: 450 * time.Millisecond}
}

func nodesOf(seed int64) int {
	if seed%3 == 0 {
		return 5
	}
	return 3
}

// outcome is what a round saw.
type outcome struct {
	acked, reads, unknown, terms, kills int
	log                                 []string
}

func (o outcome) String() string {
	return fmt.Sprintf("%d writes acknowledged, %d reads, %d operations of unknown outcome, %d terms with a leader, %d kills",
		o.acked, o.reads, o.unknown, o.terms, o.kills)
}

// run makes the round. picture is where a page goes that shows a history that is
// not linearizable; empty: nowhere.
func (r round) run(picture string) (out outcome, err error) {
	c := newCluster(r)
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.startAll(); err != nil {
		return out, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &workload{c: c, base: time.Now(), localReads: r.broken == localReads}
	var watching, clients sync.WaitGroup
	watching.Go(func() { c.watchStatus(ctx) })
	work, stopWork := context.WithCancel(ctx)
	for i := range clientCount {
		clients.Go(func() { w.client(work, i, r.seed) })
	}
	n := &nemesis{c: c, t0: w.base, rng: rand.New(rand.NewPCG(uint64(r.seed), 1))}
	kinds := slices.Clone(faults)
	if r.broken == lyingDisks {
		kinds = []fault{powerCut}
	}
	err = n.run(kinds, r.faults, r.lasts)
	stopWork()
	clients.Wait()
	var log []applied
	if err == nil {
		log, err = w.settle(ctx)
	}
	cancel()
	watching.Wait()
	out = w.outcome(n)
	if err != nil {
		return out, err
	}
	return out, errors.Join(linearizable(w.ops, picture), nothingLost(w.ops, log), c.leaders.err())
}

// settle reads every register through every node of the healed cluster, and
// returns what all of them have applied, which must be the same.
func (w *workload) settle(ctx context.Context) ([]applied, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the healed cluster does not work again within %v", patience))
	defer cancel()
	var last op
	for !last.ok {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %s", context.Cause(ctx), w.c.describe())
		}
		if l := w.c.leader(); l != nil {
			last = w.write(ctx, clientCount, l, 0, opTimeout)
		}
	}
	for _, l := range w.c.running() {
		for key := range uint64(keyCount) {
			for !w.read(ctx, clientCount, l, key, 2*time.Second).ok {
				if ctx.Err() != nil {
					return nil, fmt.Errorf("%w: node %d serves no reads: %s", context.Cause(ctx), l.id, w.c.describe())
				}
			}
		}
	}
	var log []applied
	for i, l := range w.c.running() {
		mine, reached := l.regs.upTo(last.at.index)
		if !reached {
			return nil, fmt.Errorf("%w: node %d served a read and has not applied entry %d, which was acknowledged before", errNotLinearizable, l.id, last.at.index)
		}
		if i == 0 {
			log = mine
		} else if !slices.Equal(log, mine) {
			return nil, fmt.Errorf("%w: node %d applied %d entries up to %d, others %d, or different ones", errLost, l.id, len(mine), last.at.index, len(log))
		}
	}
	return log, nil
}

func (c *cluster) describe() string {
	var b strings.Builder
	for _, l := range c.running() {
		fmt.Fprintf(&b, "%+v %v; ", l.n.Status(), l.n.Err())
	}
	return b.String()
}

func (w *workload) outcome(n *nemesis) outcome {
	out := outcome{log: n.log, terms: n.c.leaders.terms()}
	for _, o := range w.ops {
		switch {
		case !o.ok:
			out.unknown++
		case o.write:
			out.acked++
		default:
			out.reads++
		}
	}
	for _, what := range n.log {
		out.kills += strings.Count(what, "kill")
	}
	return out
}

// TestTorture is the rounds that must hold.
func TestTorture(t *testing.T) {
	seeds, shape := []int64{1, 2, 3}, short
	if n, err := strconv.Atoi(os.Getenv("RAFTBENCH_TORTURE")); err == nil {
		seeds, shape = nil, long
		for seed := range n {
			seeds = append(seeds, int64(seed+1))
		}
	}
	if seed, err := strconv.ParseInt(os.Getenv("RAFTBENCH_TORTURE_SEED"), 10, 64); err == nil {
		seeds, shape = []int64{seed}, long
	}
	for _, d := range drives {
		t.Run(d.String(), func(t *testing.T) {
			for _, seed := range seeds {
				t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
					t.Parallel()
					hold(t, shape(seed, d))
				})
			}
		})
	}
}

func hold(t *testing.T, r round) {
	picture := filepath.Join(os.TempDir(), fmt.Sprintf("raftbench-torture-%s-%d.html", r.drive, r.seed))
	out, err := r.run(picture)
	for try := 1; err == nil && out.showsNothing() && try < maxRounds; try++ {
		out, err = r.run(picture) // the machine had other things to do
	}
	t.Logf("%d nodes: %v", r.nodes, out)
	if err != nil {
		t.Fatalf("%v\nfaults:\n%s\nreplay: RAFTBENCH_TORTURE_SEED=%d go test ./node/torture -run 'TestTorture$/%s' -v -count 20",
			err, strings.Join(out.log, "\n"), r.seed, r.drive)
	}
	if out.showsNothing() {
		t.Errorf("the round shows nothing: %v", out)
	}
}

// showsNothing reports whether so little was done that no fault could show.
func (o outcome) showsNothing() bool { return o.acked < 10 || o.reads < 10 }

// maxRounds is within how many rounds a broken cluster must be caught, and a sound
// one must get something done.
const maxRounds = 20

// caught makes rounds of a broken cluster until one fails, which must be with want.
func caught(t *testing.T, broken string, want error) {
	for _, d := range drives {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range int64(maxRounds) {
				r := short(seed+1, d)
				r.broken = broken
				out, err := r.run("")
				if errors.Is(err, want) {
					t.Logf("%s: caught in round %d: %v (%v)", broken, seed+1, err, out)
					return
				}
				if err != nil {
					t.Fatalf("%s: round %d failed with %v, want %v", broken, seed+1, err, want)
				}
			}
			t.Errorf("%s: not caught in %d rounds", broken, maxRounds)
		})
	}
}

func TestLocalReadsAreCaught(t *testing.T) { caught(t, localReads, errNotLinearizable) }

func TestLyingDisksAreCaught(t *testing.T) { caught(t, lyingDisks, errLost) }

// TestChecks shows each check what it must refuse.
func TestChecks(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	write := func(id uint64, from, to int) op {
		return op{write: true, id: id, call: ms(from), ret: ms(to), ok: true, at: applied{index: id, term: 1, id: id}}
	}
	read := func(id uint64, from, to int) op { return op{id: id, call: ms(from), ret: ms(to), ok: true} }
	unknown := func(o op) op { o.ok = false; return o }
	for _, c := range []struct {
		name string
		ops  []op
		want error
	}{
		{"one after the other", []op{write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)}, nil},
		{"a stale read", []op{write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)}, errNotLinearizable},
		{"a read beside the write", []op{write(1, 0, 1), write(2, 2, 6), read(1, 4, 5)}, nil},
		{"back in time", []op{write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)}, errNotLinearizable},
		{"unknown, and seen late", []op{unknown(write(1, 0, 1)), read(0, 2, 3), read(1, 8, 9)}, nil},
		{"unknown, seen, and gone", []op{unknown(write(1, 0, 1)), read(1, 2, 3), read(0, 8, 9)}, errNotLinearizable},
		{"never written", []op{read(7, 2, 3)}, errNotLinearizable},
	} {
		if err := linearizable(c.ops, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	there := []applied{{1, 1, 1, 0}, {2, 1, 2, 0}}
	ops := []op{write(1, 0, 1), write(2, 2, 3), unknown(write(3, 4, 5))}
	for name, log := range map[string][]applied{
		"gone":          there[:1],
		"of other term": {there[0], {2, 2, 2, 0}},
		"twice":         append(slices.Clone(there), applied{3, 1, 1, 0}),
	} {
		if err := nothingLost(ops, log); !errors.Is(err, errLost) {
			t.Errorf("%s: got %v, want %v", name, err, errLost)
		}
	}
	if err := nothingLost(ops, there); err != nil {
		t.Error(err)
	}
	l := &leaders{of: map[uint64]uint64{}}
	l.note(1, 1)
	l.note(1, 1)
	l.note(2, 3)
	if err := l.err(); err != nil {
		t.Error(err)
	}
	if l.note(2, 1); !errors.Is(l.err(), errTwoLeaders) {
		t.Errorf("got %v, want %v", l.err(), errTwoLeaders)
	}
}
