package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/grpc"
)

// The test binary is a member when this is set.
const asMember = "RAFTBENCH_TEST_AS_MEMBER"

func TestMain(m *testing.M) {
	if os.Getenv(asMember) != "" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout, program()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// failing is raw whose Save fails on node 2 after some time, forgetful is raw that
// hands out less than was stored on node 3.
var (
	failing   = variant("failing", 2, func(s backends.Storage, st *backends.State) backends.Storage { return &failingStorage{Storage: s} })
	forgetful = variant("forgetful", 3, func(s backends.Storage, st *backends.State) backends.Storage {
		if !st.Empty() {
			st.Entries = st.Entries[:len(st.Entries)-5]
		}
		return s
	})
)

func variant(name string, node int, change func(backends.Storage, *backends.State) backends.Storage) backends.Backend {
	b := raw.Backend
	b.Name = name
	open := b.Open
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		s, st, err := open(opts)
		if err == nil && strings.HasSuffix(opts.Dir, "node-"+strconv.Itoa(node)) {
			s = change(s, &st)
		}
		return s, st, err
	}
	return b
}

type failingStorage struct {
	backends.Storage
	saved int
}

func (f *failingStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	if f.saved += len(ents); f.saved > 40 {
		return errors.New("the disk is gone")
	}
	return f.Storage.Save(hs, ents)
}

func program() Program {
	known := map[string]backends.Backend{}
	for _, b := range []backends.Backend{raw.Backend, failing, forgetful} {
		known[b.Name] = b
	}
	return Program{
		Backend: func(label string) (backends.Backend, error) {
			if b, ok := known[label]; ok {
				return b, nil
			}
			return backends.Backend{}, fmt.Errorf("no backend %q", label)
		},
		Network: func(_ string, e Endpoint) (Network, error) {
			opts := grpc.Options{Listen: e.Listen, Cluster: e.Cluster, Token: e.Token}
			if opts.Listen == "" {
				opts.Listen = "127.0.0.1:0"
			}
			if e.Identity != nil {
				var err error
				if opts.TLS, err = e.Identity.TLS(RoleAgent); err != nil {
					return nil, err
				}
			}
			return grpc.New(opts), nil
		},
	}
}

// processes counts the members and knows their processes.
type processes struct {
	mu   sync.Mutex
	cmds []*exec.Cmd
}

func (s *processes) command() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asMember+"=1")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmds = append(s.cmds, cmd)
	return cmd
}

// kill ends member nth as the kernel's OOM killer does.
func (s *processes) kill(t *testing.T, nth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmds[nth].Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// suite is one run of a second on three processes.
func suite(t *testing.T, b backends.Backend) (bench.Spec, *processes) {
	procs := &processes{}
	return bench.Spec{
		Backends: []backends.Backend{b}, Dir: filepath.Join(t.TempDir(), "data"), Load: bench.Closed(8),
		Transport: "grpc", Networks: bench.Networks{"grpc": func() (node.Network, error) { return nil, errors.New("not in this process") }}, Placement: bench.PlacementProcess,
		Warmup: 100 * time.Millisecond, Duration: time.Second, Repeats: 1, CalibrateFor: 100 * time.Millisecond,
		RunOne: Processes{Member: procs.command}.RunOne,
	}, procs
}

func only(t *testing.T, spec bench.Spec) (result.Run, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*deadline)
	defer cancel()
	res, err := bench.Run(ctx, spec)
	if res == nil || len(res.Runs) != 1 {
		t.Fatalf("no run: %v", err)
	}
	if _, err := os.Stat(spec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is still there")
	}
	return res.Runs[0], err
}

// underNode1 makes runs until one is led by node 1, which stands for election first:
// where the processes start slowly another may be elected before.
func underNode1(t *testing.T, b backends.Backend, change func(*bench.Spec, *processes)) (run result.Run, err error) {
	t.Helper()
	for range 10 {
		spec, procs := suite(t, b)
		change(&spec, procs)
		run, err = only(t, spec)
		procs.allGone(t)
		if run.Leader == 1 {
			return run, err
		}
	}
	t.Fatalf("node 1 never led: %v", err)
	return run, err
}

// atMeasure has something done, once, when the measured time has begun.
func atMeasure(do func()) func(bench.Progress) {
	var once sync.Once
	return func(p bench.Progress) {
		if p.Phase == "measure" {
			once.Do(do)
		}
	}
}

// allGone: nothing of a run may outlive it.
func (s *processes) allGone(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cmd := range s.cmds {
		if cmd.ProcessState == nil {
			t.Errorf("process %d was not waited for", cmd.Process.Pid)
		}
	}
}

func TestProcesses(t *testing.T) {
	spec, procs := suite(t, raw.Backend)
	run, err := only(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	procs.allGone(t)
	if len(procs.cmds) != 3 || run.Placement != "process" || run.Nodes != 3 {
		t.Errorf("%d processes, placement %q", len(procs.cmds), run.Placement)
	}
	underWay := run.Response.Count - run.Ops // at the end, by each client one at most
	if run.Ops == 0 || run.Errors > 0 && run.LeaderChanges == 0 || underWay < 0 || underWay > int64(run.Load.Clients) || run.Save.Count == 0 || len(run.Events) > 0 {
		t.Errorf("%d operations, %d errors, %d responses, %d saves, events %v", run.Ops, run.Errors, run.Response.Count, run.Save.Count, run.Events)
	}
	if v := run.Verified; v == nil || !v.OK || v.Acked < run.Ops {
		t.Errorf("verified %+v of %d", v, run.Ops)
	}
	if run.Restart == nil || run.Bytes == nil || run.Bytes.Disk == nil || run.Bytes.Network == nil || *run.Bytes.Network == 0 || run.RSS == nil || run.CPUPerOp == nil {
		t.Errorf("costs are missing: restart %v, bytes %+v, RSS %v, CPU %v", run.Restart, run.Bytes, run.RSS, run.CPUPerOp)
	}
	// Every operation is handed to Save on each of the three nodes. Those without the
	// load hear of the measured time when the machine gets round to it.
	if logical := run.Bytes.Logical; float64(logical) < 1.3*float64(run.Ops)*1024 {
		t.Errorf("%d bytes were handed to Save for %d operations: not of all nodes", logical, run.Ops)
	}
	merged(t, run.Fsync)
}

// merged checks that the histogram of all nodes holds what each of them did.
func merged(t *testing.T, f *result.Fsync) {
	t.Helper()
	if f == nil || len(f.Nodes) != 3 {
		t.Fatalf("fsync %+v: want three nodes", f)
	}
	h, err := hdrhistogram.Decode([]byte(f.Encoded))
	if err != nil {
		t.Fatal(err)
	}
	var count int64
	var slowest time.Duration
	for _, n := range f.Nodes {
		count += n.Count
		slowest = max(slowest, n.Max)
	}
	if h.TotalCount() != count || f.Count != count || f.Max != slowest {
		t.Errorf("%d of %d syncs, slowest %v of %v", h.TotalCount(), count, f.Max, slowest)
	}
}

// TestFollowerKilled: the cluster goes on, and the run says so.
func TestFollowerKilled(t *testing.T) {
	run, err := underNode1(t, raw.Backend, func(spec *bench.Spec, procs *processes) {
		spec.Progress = atMeasure(func() { procs.kill(t, 2) })
	})
	if err != nil {
		t.Fatal(err)
	}
	died(t, run, 3, "killed")
	if run.Ops == 0 || run.Verified == nil || !run.Verified.OK || run.Verified.Acked < run.Ops {
		t.Errorf("%d operations, verified %+v", run.Ops, run.Verified)
	}
	if run.CPUPerOp != nil || run.Fsync != nil || run.Bytes != nil {
		t.Errorf("costs are given although a part of them is missing: %v %v %v", run.CPUPerOp, run.Fsync, run.Bytes)
	}
}

func died(t *testing.T, run result.Run, node int, why string) {
	t.Helper()
	if len(run.Events) != 1 || run.Events[0].Node != node || run.Events[0].Kind != "fault" || run.Events[0].T <= 0 || !strings.Contains(run.Events[0].Text, why) {
		t.Errorf("events %+v: want the end of node %d, %s", run.Events, node, why)
	}
	if !strings.Contains(strings.Join(run.Flags, " "), "node_died") {
		t.Errorf("flags %v", run.Flags)
	}
}

// TestStorageFails: a node that stops because of its disk has not died, but is as
// useless.
func TestStorageFails(t *testing.T) {
	run, err := underNode1(t, failing, func(*bench.Spec, *processes) {})
	if err != nil {
		t.Fatal(err)
	}
	died(t, run, 2, "the disk is gone")
	if run.Verified == nil || !run.Verified.OK {
		t.Errorf("verified %+v", run.Verified)
	}
}

func TestLeaderKilled(t *testing.T) {
	run, err := underNode1(t, raw.Backend, func(spec *bench.Spec, procs *processes) {
		spec.Progress = atMeasure(func() { procs.kill(t, 0) })
	})
	if err == nil || !strings.Contains(err.Error(), "leader") || !strings.Contains(err.Error(), "killed") || run.Error == "" {
		t.Errorf("error %v, run says %q", err, run.Error)
	}
}

// TestLost: a follower that lost something makes the run say so.
func TestLost(t *testing.T) {
	spec, procs := suite(t, forgetful)
	run, err := only(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	procs.allGone(t)
	if v := run.Verified; v == nil || v.OK || v.Lost == 0 || !strings.Contains(v.Detail, "node 3") {
		t.Errorf("verified %+v", v)
	}
}

// TestFaults: the timeline reaches the links of every node. What followers answer is
// delayed where it is sent, by the followers' own processes.
func TestFaults(t *testing.T) {
	const delay = 300 * time.Millisecond
	var run result.Run
	for range 10 {
		var err error
		run, err = underNode1(t, raw.Backend, func(spec *bench.Spec, _ *processes) {
			spec.Faults, spec.Timeout = "at 100ms: delay *>1 300ms; at 500ms: heal", 10*time.Second
		})
		if err != nil {
			t.Fatal(err)
		}
		// A machine that pauses makes both events at the same moment.
		if f := run.Faults; f == nil || len(f.Events) != 2 || f.Events[1].T-f.Events[0].T >= delay {
			break
		}
	}
	if f := run.Faults; f == nil || len(f.Events) != 2 || run.Verified == nil || !run.Verified.OK || len(run.Flags) > 0 && run.Flags[0] == "node_died" {
		t.Errorf("faults %+v, verified %+v, flags %v, events %v", run.Faults, run.Verified, run.Flags, run.Events)
	}
	if run.Response.Max < delay {
		t.Errorf("no operation took longer than %v, although all answers were delayed by %v", run.Response.Max, delay)
	}
}

// TestBadPlacement: what cannot leave its process is told at once.
func TestBadPlacement(t *testing.T) {
	for name, change := range map[string]func(*bench.Spec){
		"transport": func(s *bench.Spec) { s.Transport = "mem"; s.Networks = nil },
		"workload":  func(s *bench.Spec) { s.Workload.Kind = bench.WorkloadAge },
		"placement": func(s *bench.Spec) { s.Placement = "moon" },
		"kill":      func(s *bench.Spec) { s.Faults = "at 100ms: kill 2" },
	} {
		spec, _ := suite(t, raw.Backend)
		change(&spec)
		var usage *bench.UsageError
		if _, err := bench.Run(context.Background(), spec); !errors.As(err, &usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
