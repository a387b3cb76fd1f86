package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/raftbench/raftbench/node/transport/transporttest"
)

// TestPlacementProcess: every transport that leaves its process makes a run whose
// nodes are processes, by the very program that a user starts.
func TestPlacementProcess(t *testing.T) {
	for _, transport := range []string{"grpc", "rafthttp"} {
		o := raftbench(t, quick("--backends", "raw", "--placement", "process", "--transport", transport, "--duration", "1s")...)
		if o.code != 0 {
			t.Fatalf("%s: exit code %d:\n%s", transport, o.code, o.stderr)
		}
		r := read(t, o).Runs[0]
		if r.Placement != "process" || r.Transport != transport || r.Ops == 0 || r.Verified == nil || !r.Verified.OK {
			t.Errorf("placement %q, transport %q, %d operations, verified %+v", r.Placement, r.Transport, r.Ops, r.Verified)
		}
		if slices.Contains(r.Flags, "node_died") || r.GOMAXPROCS == 0 {
			t.Errorf("flags %v, GOMAXPROCS %d, events %v", r.Flags, r.GOMAXPROCS, r.Events)
		}
		if got := left(t, o.dir); got != "out" {
			t.Errorf("left behind: %s", got)
		}
	}
}

// TestAgent: a run on an agent, both as a user starts them, and what is left.
func TestAgent(t *testing.T) {
	dir := t.TempDir()
	token, data := filepath.Join(dir, "token"), filepath.Join(dir, "data")
	if err := os.WriteFile(token, []byte(strings.Repeat("0123456789abcdef", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := transporttest.FreeAddr(t)
	agent, _, stderr := command(t, "agent", "--listen", addr, "--peer-listen", "127.0.0.1:0", "--dir", data, "--token-file", token)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	stop := sync.OnceFunc(func() {
		_ = agent.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			t.Errorf("agent: %v\n%s", err, stderr)
		}
	})
	defer stop()
	until(t, "the agent listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return conn.Close() == nil // as a stranger does
	})
	o := raftbench(t, quick("--backends", "raw", "--hosts", addr, "--token-file", token)...)
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	r := read(t, o)
	run := r.Runs[0]
	if len(r.Hosts) != 1 || r.Env.Dir != data || run.Nodes != 1 || run.Placement != "hosts" || run.Verified == nil || !run.Verified.OK {
		t.Errorf("%d hosts, data in %s, %d nodes, placement %q, verified %+v", len(r.Hosts), r.Env.Dir, run.Nodes, run.Placement, run.Verified)
	}
	if got := left(t, o.dir); got != "out" {
		t.Errorf("left behind: %s", got)
	}
	stop()
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the agent left %s", data)
	}
}
