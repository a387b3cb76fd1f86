package bench_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/grpc"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

const (
	// installStateEnv is the state of [TestInstallPair] in MiB. With it the test
	// holds memory and speed against their limits; without, it only sees that an
	// install between two processes works.
	installStateEnv = "RAFTBENCH_INSTALL_MIB"
	// installBackendEnv is whose storage, with settings as in --backends, such as
	// pebble[snapshot=engine]; default raw.
	installBackendEnv = "RAFTBENCH_INSTALL_BACKEND"
	// installSideEnv makes this process one side of it.
	installSideEnv = "RAFTBENCH_TEST_INSTALL_SIDE"
)

// The limits: resident memory at its peak against the state, and the time of an
// install, restore included, against that of a plain copy with sync.
const (
	installMemoryLimit = 2.5
	installTimeLimit   = 2.0
)

// installSide is one of the two processes. The leader's has a second node beside
// it, without a state, so that there is a majority while the follower is cut off.
type installSide struct {
	Leads      bool
	Dir        string
	Backend    string
	StateBytes int64
	Addrs      map[uint64]string

	net   *cuttableNetwork
	own   *atomic.Int64 // see installTold
	nodes []*node.Node
	state *timedState
	store *timedStore
}

const (
	installFollower = 3
	installMoved    = 200 // entries that the follower misses
	installValue    = 1024
)

// installAsk is what the test tells a side, installTold its answer. Times are of
// the clock that both share, in ns since 1970.
type installAsk struct {
	Do    string
	Index uint64
}

type installTold struct {
	Err     string `json:",omitempty"`
	Index   uint64 // applied
	State   int64  // bytes of all values
	Bytes   int64  // of the encoded snapshot
	Peak    int64  // of resident memory since it was reset, bytes
	Own     int64  // the same without the pages of mapped files, looked at every 5 ms
	Hash    uint64
	At      int64 // when the link was whole again
	Sent    int64 // when the snapshot was handed to the transport
	Staged  int64 // when all of it was written and synced
	Saved   int64 // when it was saved
	Begun   int64 // when the state machine began to restore
	Done    int64 // when it had
	Created int64 // how long the snapshot took, ns
}

// TestInstallPair measures the install of a snapshot between two processes over
// loopback: how much memory each needs, and how fast it is beside a plain copy of
// a file of that size, in turns.
func TestInstallPair(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the peak of resident memory is reset by way of Linux's /proc")
	}
	mib, rounds := 8, 1
	measured := os.Getenv(installStateEnv) != ""
	if measured {
		var err error
		if mib, err = strconv.Atoi(os.Getenv(installStateEnv)); err != nil {
			t.Fatalf("%s: %v", installStateEnv, err)
		}
		rounds = 5
	}
	backend := os.Getenv(installBackendEnv)
	if backend == "" {
		backend = "raw"
	}
	dir := t.TempDir()
	addrs := map[uint64]string{}
	for id := uint64(1); id <= installFollower; id++ {
		addrs[id] = transporttest.FreeAddr(t)
	}
	spec := installSide{Leads: true, Dir: dir, Backend: backend, StateBytes: int64(mib) << 20, Addrs: addrs}
	leader := startInstallSide(t, spec)
	spec.Leads = false
	follower := startInstallSide(t, spec)
	leader.ask(installAsk{Do: "lead"})
	var got []installFigures
	for range rounds {
		cut := leader.ask(installAsk{Do: "cut"})
		follower.ask(installAsk{Do: "reset"})
		f := installFigures{created: time.Duration(cut.Created), healed: leader.ask(installAsk{Do: "heal"})}
		f.follower = follower.ask(installAsk{Do: "await", Index: cut.Index})
		f.leader = leader.ask(installAsk{Do: "report"})
		if l, f := leader.ask(installAsk{Do: "hash"}), follower.ask(installAsk{Do: "hash"}); l.Hash != f.Hash || l.Index != f.Index {
			t.Fatalf("the follower's state at %d has hash %x, the leader's at %d %x", f.Index, f.Hash, l.Index, l.Hash)
		}
		if measured {
			f.copied = timeCopy(t, dir, f.follower.Bytes)
			t.Log(f)
		}
		got = append(got, f)
	}
	if measured {
		checkInstall(t, got)
	}
}

// installFigures are of one install and of the copy beside it.
type installFigures struct {
	healed, leader, follower installTold
	created, copied          time.Duration
}

// moved is how long it took from the hand-over to the transport until the
// snapshot was durable and saved.
func (f installFigures) moved() time.Duration {
	return time.Duration(f.follower.Saved - f.leader.Sent)
}

// installed is the whole, from when the follower could be reached again.
func (f installFigures) installed() time.Duration {
	return time.Duration(f.follower.Done - f.healed.At)
}

func (f installFigures) String() string {
	return fmt.Sprintf("%d bytes: noticed after %v, received and synced %v, saved %v, restore begun %v, restored %v: %v in all (moved %v); copy with sync %v; peak %.2f× (own %.2f×) leader, %.2f× (own %.2f×) follower; created in %v",
		f.follower.Bytes, time.Duration(f.leader.Sent-f.healed.At).Round(time.Millisecond), time.Duration(f.follower.Staged-f.leader.Sent).Round(time.Millisecond),
		time.Duration(f.follower.Saved-f.follower.Staged).Round(time.Millisecond), time.Duration(f.follower.Begun-f.follower.Saved).Round(time.Millisecond),
		time.Duration(f.follower.Done-f.follower.Begun).Round(time.Millisecond), f.installed().Round(time.Millisecond), f.moved().Round(time.Millisecond), f.copied.Round(time.Millisecond),
		peakRatio(f.leader), ownRatio(f.leader), peakRatio(f.follower), ownRatio(f.follower), f.created.Round(time.Millisecond))
}

func peakRatio(told installTold) float64 { return float64(told.Peak) / float64(told.State) }

func ownRatio(told installTold) float64 { return float64(told.Own) / float64(told.State) }

// checkInstall holds the worst peak and the median time against their limits.
func checkInstall(t *testing.T, got []installFigures) {
	t.Helper()
	median := func(of func(installFigures) float64) float64 {
		var all []float64
		for _, f := range got {
			all = append(all, of(f))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var leader, follower float64
	for _, f := range got {
		leader, follower = max(leader, peakRatio(f.leader)), max(follower, peakRatio(f.follower))
	}
	moved := median(func(f installFigures) float64 { return float64(f.moved()) / float64(f.copied) })
	whole := median(func(f installFigures) float64 { return float64(f.installed()) / float64(f.copied) })
	t.Logf("peak of resident memory: leader %.2f×, follower %.2f× the state (limit %.1f×)", leader, follower, installMemoryLimit)
	t.Logf("medians of %d: to the follower's disk %.2f× the time of a copy with sync, the whole install %.2f× (limit %.1f×)", len(got), moved, whole, installTimeLimit)
	if max(leader, follower) > installMemoryLimit || whole > installTimeLimit {
		t.Error("a limit is missed")
	}
}

// timeCopy copies a file of that size, which is in the page cache, as plainly as
// can be: read, write, fsync.
func timeCopy(t *testing.T, dir string, size int64) time.Duration {
	t.Helper()
	from := filepath.Join(dir, "copied-from")
	if info, err := os.Stat(from); err != nil || info.Size() != size {
		writeRandom(t, from, size)
	}
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	start := time.Now()
	dst, err := os.Create(filepath.Join(dir, "copied-to"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	// Not copy_file_range, which some file systems do without copying.
	_, err = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf)
	if err = errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	if err := os.Remove(dst.Name()); err != nil {
		t.Fatal(err)
	}
	return took
}

func writeRandom(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// installChild is a side as the test sees it.
type installChild struct {
	t   *testing.T
	who string
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func startInstallSide(t *testing.T, spec installSide) *installChild {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	c := &installChild{t: t, who: "follower", cmd: exec.Command(os.Args[0])}
	if spec.Leads {
		c.who = "leader"
	}
	c.cmd.Env = append(os.Environ(), installSideEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("the %s's process: %v", c.who, err)
		}
	})
	return c
}

func (c *installChild) ask(a installAsk) (told installTold) {
	c.t.Helper()
	if err := c.in.Encode(a); err != nil {
		c.t.Fatalf("ask the %s to %s: %v", c.who, a.Do, err)
	}
	if err := c.out.Decode(&told); err != nil {
		c.t.Fatalf("ask the %s to %s: %v", c.who, a.Do, err)
	}
	if told.Err != "" {
		c.t.Fatalf("the %s cannot %s: %s", c.who, a.Do, told.Err)
	}
	return told
}

// runInstallSide is a side as it sees itself. It ends with its standard input.
func runInstallSide(text string) (err error) {
	s := &installSide{own: new(atomic.Int64)}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return err
	}
	s.net = &cuttableNetwork{Network: grpc.New(grpc.Options{Peers: s.Addrs, Cluster: s.Dir})}
	ids := []uint64{installFollower}
	if s.Leads {
		ids = []uint64{1, 2}
	}
	var stores []backends.Storage
	defer func() {
		for _, n := range s.nodes {
			n.Stop()
		}
		for _, st := range stores {
			err = errors.Join(err, st.Close())
		}
		err = errors.Join(err, s.net.Close())
	}()
	for _, id := range ids {
		store, err := s.start(id)
		if err != nil {
			return err
		}
		stores = append(stores, store)
	}
	stop := make(chan struct{})
	defer close(stop)
	go s.watchOwn(stop)
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var a installAsk
		if err := in.Decode(&a); err != nil {
			return nil // the test has ended
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		told, err := s.do(ctx, a)
		cancel()
		if err != nil {
			told.Err = err.Error()
		}
		if err := out.Encode(told); err != nil {
			return err
		}
	}
}

// start opens and starts a node; the first has the state.
func (s *installSide) start(id uint64) (backends.Storage, error) {
	name, params, err := backends.ParseName(s.Backend)
	if err != nil {
		return nil, err
	}
	b, err := all.Lookup(name)
	if err != nil {
		return nil, err
	}
	b = b.With(params)
	dir := filepath.Join(s.Dir, fmt.Sprint("node-", id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	inner, st, err := b.Open(backends.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	cfg := node.Config{ID: id, Peers: []uint64{1, 2, installFollower}, Storage: inner, State: st, StateMachine: node.NewKV(1), Network: s.net}
	if s.state == nil {
		s.state = &timedState{KV: node.NewKV(int(s.StateBytes/installValue) + 1)}
		s.state.Fill(1, s.StateBytes, installValue)
		cfg.StateMachine = s.state
		streamer, ok := inner.(backends.SnapshotStreamer)
		if !ok {
			return inner, fmt.Errorf("%s takes no streams", s.Backend)
		}
		s.store = &timedStore{Storage: inner, SnapshotStreamer: streamer}
		cfg.Storage = s.store
	}
	n, err := node.Start(cfg)
	if err == nil {
		s.nodes = append(s.nodes, n)
	}
	return inner, err
}

func (s *installSide) do(ctx context.Context, a installAsk) (told installTold, err error) {
	n := s.nodes[0]
	switch a.Do {
	case "lead":
		err = s.wait(ctx, func() bool { return n.Status().Applied >= 3 })
		if err == nil {
			err = n.Campaign(ctx)
		}
		if err == nil {
			err = s.wait(ctx, func() bool { return n.Status().IsLeader && n.Status().Applied > 3 })
		}
	case "cut":
		if err = s.moveOn(ctx); err == nil {
			start := time.Now()
			err = n.Snapshot(ctx, 0)
			told.Created = int64(time.Since(start))
		}
		err = errors.Join(err, s.forgetPeak())
	case "reset":
		s.state.forget()
		err = s.forgetPeak()
	case "heal":
		told.At = time.Now().UnixNano()
		s.net.cut.Store(false)
	case "await":
		err = s.wait(ctx, func() bool { return s.state.done.Load() != 0 && n.Status().Applied >= a.Index })
		told.Staged, told.Saved = s.store.staged.Load(), s.store.saved.Load()
		told.Begun, told.Done, told.Bytes = s.state.begun.Load(), s.state.done.Load(), s.state.bytes.Load()
		err = errors.Join(err, s.memory(&told))
	case "report":
		told.Sent = s.net.sent.Load()
		err = s.memory(&told)
	case "hash":
		told.Hash = s.state.Hash()
	default:
		err = fmt.Errorf("what is %q?", a.Do)
	}
	told.Index = n.Status().Applied
	return told, err
}

func (s *installSide) memory(told *installTold) error {
	m, err := env.RSS()
	told.Peak, told.Own, told.State = m.Peak, s.own.Load(), s.state.Bytes()
	return err
}

func (s *installSide) forgetPeak() error {
	s.own.Store(0)
	return env.ResetPeakRSS()
}

// watchOwn looks at the anonymous part of resident memory, whose peak the system
// does not keep. An engine that maps its files has the page cache in the rest.
func (s *installSide) watchOwn(stop <-chan struct{}) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
		text, err := os.ReadFile("/proc/self/status")
		_, anon, found := strings.Cut(string(text), "RssAnon:")
		var kib int64
		if _, scanErr := fmt.Sscanf(anon, "%d kB", &kib); err == nil && found && scanErr == nil && kib<<10 > s.own.Load() {
			s.own.Store(kib << 10)
		}
	}
}

// moveOn cuts the follower off and moves the log past it.
func (s *installSide) moveOn(ctx context.Context) error {
	s.net.cut.Store(true)
	goal := s.nodes[0].Status().Applied + installMoved
	for range installMoved {
		if err := s.nodes[0].Propose(ctx, make([]byte, installValue)); err != nil {
			return err
		}
	}
	return s.wait(ctx, func() bool {
		return s.nodes[0].Status().Applied >= goal && s.nodes[1].Status().Applied >= goal
	})
}

// wait polls until done, a node fails, or ctx ends.
func (s *installSide) wait(ctx context.Context, done func() bool) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, n := range s.nodes {
			if err := n.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// timedState notes when it restored.
type timedState struct {
	*node.KV
	begun, done, bytes atomic.Int64
}

func (s *timedState) forget() { s.done.Store(0) }

func (s *timedState) RestoreStream(data io.Reader, size int64) error {
	s.begun.Store(time.Now().UnixNano())
	err := s.KV.RestoreStream(data, size)
	s.bytes.Store(size)
	s.done.Store(time.Now().UnixNano())
	return err
}

// timedStore notes when a snapshot was staged and saved.
type timedStore struct {
	backends.Storage
	backends.SnapshotStreamer
	staged, saved atomic.Int64
}

func (s *timedStore) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	staged, err := s.SnapshotStreamer.StageSnap(meta, size, data)
	s.staged.Store(time.Now().UnixNano())
	if err != nil {
		return nil, err
	}
	return timedStaged{staged, s}, nil
}

type timedStaged struct {
	backends.StagedSnap
	s *timedStore
}

func (t timedStaged) Save() error {
	err := t.StagedSnap.Save()
	t.s.saved.Store(time.Now().UnixNano())
	return err
}

// cuttableNetwork can lose everything from and to the follower.
type cuttableNetwork struct {
	node.Network
	cut  atomic.Bool
	sent atomic.Int64 // when the last snapshot was handed over
}

func (n *cuttableNetwork) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := n.Network.Join(id, &cuttableReceiver{r, n})
	if err != nil {
		return nil, err
	}
	return &cuttableTransport{t, n, r}, nil
}

type cuttableTransport struct {
	node.Transport
	n *cuttableNetwork
	r node.Receiver
}

func (t *cuttableTransport) Send(msgs []*raftpb.Message) {
	if !t.n.cut.Load() {
		t.Transport.Send(msgs)
		return
	}
	kept := make([]*raftpb.Message, 0, len(msgs))
	for _, m := range msgs {
		if m.GetTo() != installFollower {
			kept = append(kept, m)
		}
	}
	t.Transport.Send(kept)
}

func (t *cuttableTransport) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	if t.n.cut.Load() {
		_ = data.Close() // it was not read
		t.r.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return
	}
	t.n.sent.Store(time.Now().UnixNano())
	t.Transport.(node.SnapshotSender).SendSnapshot(m, data, size)
}

type cuttableReceiver struct {
	node.Receiver
	n *cuttableNetwork
}

func (r *cuttableReceiver) Process(ctx context.Context, m *raftpb.Message) error {
	if r.n.cut.Load() && m.GetFrom() == installFollower {
		return nil
	}
	return r.Receiver.Process(ctx, m)
}

func (r *cuttableReceiver) ProcessSnapshot(ctx context.Context, m *raftpb.Message, data io.Reader, size int64) error {
	return node.DeliverSnapshot(ctx, r.Receiver, m, data, size)
}
