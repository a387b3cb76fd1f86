package main

import (
	"slices"
	"testing"
)

// TestPlacementProcess: every transport that leaves its process makes a run whose
// nodes are processes, by the very program that a user starts.
func TestPlacementProcess(t *testing.T) {
	for _, transport := range []string{"grpc", "rafthttp"} {
		o := raftbench(t, quick("--backends", "raw", "--placement", "process", "--transport", transport)...)
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
