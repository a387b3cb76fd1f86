package main

import (
	"strings"
	"testing"
)

// TestTransports: a list of transports is one result and one table, each with its
// own cost.
func TestTransports(t *testing.T) {
	o := raftbench(t, quick("--quiet", "--backends", "raw", "--transport", "mem,grpc,rafthttp", "--duration", "1s")...)
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	if n := strings.Count(o.stdout, "×floor"); n != 1 {
		t.Errorf("%d tables instead of one:\n%s", n, o.stdout)
	}
	for _, want := range []string{"backend  transport", "raw      mem  ", "raw      grpc  ", "raw      rafthttp  ", "messages", "rtt"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, o.stdout)
		}
	}
	seen := map[string]bool{}
	for _, r := range read(t, o).Runs {
		seen[r.Transport] = true
		// A payload goes to two followers. What was under way when the window opened
		// was sent before it.
		if r.Verified == nil || !r.Verified.OK || r.CPUPerOp == nil || r.Network == nil || r.Network.BytesPerOp == nil || *r.Network.BytesPerOp < 1.5*1024 || r.Network.RTT.Count == 0 {
			t.Errorf("%s: verified %+v, network %+v", r.ID, r.Verified, r.Network)
		}
	}
	if len(seen) != 3 {
		t.Errorf("runs of %v", seen)
	}
}

// TestFlagLists: lists of flags make the product of them, and win over a file.
func TestFlagLists(t *testing.T) {
	f, flags := runFlagSet(t, "--file", suiteText(t, "nodes: [1, 3]\ntransport: [mem, grpc]\n"), "--transport", "rafthttp", "--loop", "ready,async")
	spec, err := f.suite(flags)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range spec.Matrix {
		names = append(names, c.Transport+" "+c.Variant)
	}
	if got := strings.Join(names, "; "); got != "rafthttp nodes=1,loop=ready; rafthttp nodes=1,loop=async; rafthttp nodes=3,loop=ready; rafthttp nodes=3,loop=async" {
		t.Errorf("configurations %s", got)
	}
	for args, want := range map[string]string{"mem,mem": "mem is given twice", "mem,pigeon": `transport "pigeon"`, "mem,": "a value is missing"} {
		f, flags := runFlagSet(t, "--transport", args)
		if _, err := f.suite(flags); err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("--transport %s: %v", args, err)
		}
	}
}
