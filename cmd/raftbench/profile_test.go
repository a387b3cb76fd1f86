package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProfiles: each run leaves a CPU profile and an execution trace under its id.
func TestProfiles(t *testing.T) {
	o := raftbench(t, quick("--quiet", "--backends", "mem,raw", "--cpuprofile", "cpu.pprof", "--trace", "exec.trace")...)
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	if got, want := left(t, o.dir), "cpu-001-mem.pprof cpu-001-raw.pprof exec-001-mem.trace exec-001-raw.trace out"; got != want {
		t.Fatalf("left %s, want %s", got, want)
	}
	for name, magic := range map[string]string{"cpu-001-raw.pprof": "\x1f\x8b", "exec-001-raw.trace": "go 1."} {
		data, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil || len(data) < 500 || !bytes.HasPrefix(data, []byte(magic)) {
			t.Errorf("%s: %d bytes, error %v", name, len(data), err)
		}
	}
	if o := raftbench(t, quick("--cpuprofile", "none/cpu.pprof")...); o.code != exitUsage || !strings.Contains(o.stderr, "no directory none") || left(t, o.dir) != "" {
		t.Errorf("exit code %d, left %s:\n%s", o.code, left(t, o.dir), o.stderr)
	}
}
