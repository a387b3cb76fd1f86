package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

// killedDir names the directory of a cluster that this process runs until it is
// killed; killedBackend names its backend.
const (
	killedDir     = "RAFTBENCH_TEST_KILLED_DIR"
	killedBackend = "RAFTBENCH_TEST_KILLED_BACKEND"
	// killsEnv is how often each engine's cluster is killed; `make soak` sets 20.
	killsEnv = "RAFTBENCH_KILLS"
)

func TestMain(m *testing.M) {
	powercut.MaybeChild(all.Lookup)
	if dir := os.Getenv(killedDir); dir != "" {
		if err := runUntilKilled(dir, os.Getenv(killedBackend)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if side := os.Getenv(installSideEnv); side != "" {
		if err := runInstallSide(side); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const killedNodes = 3

// acks writes every entry that node 1 applied to standard output, one line each,
// after it was applied: what its clients would have been told.
type acks struct {
	*node.KV
	id  uint64
	out *bufio.Writer
}

func (a *acks) Apply(ents []*raftpb.Entry) {
	a.KV.Apply(ents)
	if a.id != 1 {
		return
	}
	for _, e := range ents {
		fmt.Fprintf(a.out, "%d %d %d\n", e.GetIndex(), e.GetTerm(), load.ID(e.GetData()))
	}
	_ = a.out.Flush() // a reader that is gone has killed this process
}

// openCluster starts three nodes on dir. SnapshotEntries is small, so that a kill
// also falls into snapshots and into the release of what they made unnecessary.
func openCluster(dir string, b backends.Backend, state func(id uint64) node.StateMachine) (map[uint64]*node.Node, func() error, error) {
	net := mem.New(mem.Options{})
	nodes := map[uint64]*node.Node{}
	var stores []backends.Storage
	stop := func() error {
		var errs []error
		for _, n := range nodes {
			n.Stop()
		}
		for _, s := range stores {
			errs = append(errs, s.Close())
		}
		return errors.Join(append(errs, net.Close())...)
	}
	for id := uint64(1); id <= killedNodes; id++ {
		place := filepath.Join(dir, fmt.Sprint("node-", id))
		if err := os.MkdirAll(place, 0o755); err != nil {
			return nil, stop, err
		}
		s, st, err := b.Open(backends.Options{Dir: place})
		if err != nil {
			return nil, stop, err
		}
		stores = append(stores, s)
		nodes[id], err = node.Start(node.Config{
			ID: id, Peers: []uint64{1, 2, 3}, Storage: s, State: st, Network: net, SnapshotEntries: 2000, CatchUpEntries: 100,
			StateMachine: state(id), Tick: 20 * time.Millisecond,
		})
		if err != nil {
			delete(nodes, id)
			return nil, stop, err
		}
	}
	return nodes, stop, nil
}

// leader waits for one that has applied something.
func leader(nodes map[uint64]*node.Node) (*node.Node, error) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for _, n := range nodes {
			if err := n.Err(); err != nil {
				return nil, err
			}
			if st := n.Status(); st.IsLeader && st.Applied >= st.Committed && st.Applied > 0 {
				return n, nil
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil, fmt.Errorf("no leader within %v", patience)
}

// runUntilKilled proposes as fast as it can.
func runUntilKilled(dir, backend string) error {
	b, err := all.Lookup(backend)
	if err != nil {
		return err
	}
	payloads, err := load.NewPayloads(1, 16, 2000, 256, 0)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	nodes, stop, err := openCluster(dir, b, func(id uint64) node.StateMachine {
		return &acks{KV: node.NewKV(256), id: id, out: out}
	})
	if err != nil {
		return errors.Join(err, stop())
	}
	l, err := leader(nodes)
	if err != nil {
		return err
	}
	lead := l.Status().ID
	base := uint64(time.Now().UnixNano()) << 8 // ids differ from those of an earlier life
	for i := uint64(1); ; i++ {
		if err := nodes[lead].Propose(context.Background(), payloads.Make(base+i)); err != nil {
			return err
		}
		if i%64 == 0 { // leave some in flight, not a million
			for st := nodes[lead].Status(); st.Committed > st.Applied+1000; st = nodes[lead].Status() {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// ack is an entry that was acknowledged.
type ack struct{ index, term, id uint64 }

// TestKill kills a process that runs a whole cluster, in the middle of its work,
// and looks for every acknowledged entry in what a majority of its nodes left.
// Then the cluster runs again on the same directories, and is killed again.
func TestKill(t *testing.T) {
	kills := 2
	if s := os.Getenv(killsEnv); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", killsEnv, err)
		}
	}
	for _, b := range all.Backends {
		if b.Durability != backends.Synced {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			dir := t.TempDir()
			rng := rand.New(rand.NewPCG(1, 2))
			var acked []ack
			for life := range kills {
				got := killOnce(t, dir, b.Name, 200+rng.IntN(3000))
				acked = append(acked, got...)
				checkMajority(t, dir, b, acked)
				if t.Failed() {
					t.Fatalf("after kill %d of %d, %d entries acknowledged", life+1, kills, len(acked))
				}
			}
			t.Logf("%d kills, %d acknowledged entries", kills, len(acked))
			checkGoesOn(t, dir, b)
		})
	}
}

// killOnce runs the cluster until so many entries were acknowledged, kills it, and
// returns all that were.
func killOnce(t *testing.T, dir, backend string, after int) []ack {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedDir+"="+dir, killedBackend+"="+backend)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	var got []ack
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what follows the last newline is a line that the kill cut
		}
		var a ack
		if n, _ := fmt.Sscanf(line, "%d %d %d", &a.index, &a.term, &a.id); n != 3 {
			t.Fatalf("the cluster said %q", line)
		}
		got = append(got, a)
		if len(got) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the cluster ended by itself: %v", err)
	}
	if len(got) < after {
		t.Fatalf("only %d entries were acknowledged within %v", len(got), patience)
	}
	return got[:len(got):len(got)]
}

// checkMajority looks for each acknowledged entry in the logs of two nodes at
// least; one below a node's snapshot counts as there.
func checkMajority(t *testing.T, dir string, b backends.Backend, acked []ack) {
	t.Helper()
	found := make([]int, len(acked))
	var held []string // what each node has, for the message
	for id := 1; id <= killedNodes; id++ {
		place := filepath.Join(dir, fmt.Sprint("node-", id))
		s, st, err := b.Open(backends.Options{Dir: place})
		if err != nil {
			t.Fatalf("open what the kill left: %v", err)
		}
		snap := st.Snapshot.GetMetadata().GetIndex()
		held = append(held, fmt.Sprintf("node %d: snapshot %d, log to %d, term %d, commit %d", id, snap, st.LastIndex(), st.HardState.GetTerm(), st.HardState.GetCommit()))
		for i, a := range acked {
			if a.index <= snap {
				found[i]++
			} else if at := a.index - snap - 1; at < uint64(len(st.Entries)) {
				if e := st.Entries[at]; e.GetTerm() == a.term && load.ID(e.GetData()) == a.id {
					found[i]++
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range found {
		if n < 2 {
			t.Errorf("entry %d of term %d was acknowledged (number %d of %d), and %d nodes have it; %s", acked[i].index, acked[i].term, i, len(acked), n, strings.Join(held, "; "))
			return
		}
	}
}

// checkGoesOn: the cluster elects a leader on what is left, and takes proposals.
func checkGoesOn(t *testing.T, dir string, b backends.Backend) {
	t.Helper()
	nodes, stop, err := openCluster(dir, b, func(uint64) node.StateMachine { return node.NewKV(256) })
	if err != nil {
		t.Fatal(errors.Join(err, stop()))
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	l, err := leader(nodes)
	if err != nil {
		t.Fatal(err)
	}
	before := l.Status().Applied
	if err := l.Propose(context.Background(), make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for l.Status().Applied <= before {
		if time.Now().After(deadline) {
			t.Fatalf("a proposal is not applied within %v", patience)
		}
		time.Sleep(time.Millisecond)
	}
}
