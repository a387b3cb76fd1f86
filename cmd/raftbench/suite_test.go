package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/result"
)

func runFlagSet(t testing.TB, args ...string) (*runFlags, *pflag.FlagSet) {
	t.Helper()
	var f runFlags
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := cmd.Flags().Parse(args); err != nil {
		t.Fatal(err)
	}
	return &f, cmd.Flags()
}

func suiteText(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "suite.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const wholeSuite = `
# every kind of setting
backends:
  - raw
  - mem
  - {name: raw, params: {recycle: ["on", "off"], segment: 4MiB}}
load: [closed:1, "search:p99<10ms", curve]
nodes: [1, 3]
value-size: [1KiB, 100-4KiB]
transport: mem
read-ratio: 0.25
duration: 2s
warmup: 500ms
repeats: 7
seed: 42
keep: true
threshold: ["raw:save.p99<5ms", "mem:errors<1"]
`

func TestSuite(t *testing.T) {
	f, flags := runFlagSet(t, "--file", suiteText(t, wholeSuite), "--repeats", "2", "--value-size", "64")
	spec, err := f.suite(flags)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range spec.Matrix {
		names = append(names, c.Variant)
		var labels []string
		for _, b := range c.Backends {
			labels = append(labels, b.Label())
		}
		if got := strings.Join(labels, " "); got != "raw mem raw[recycle=on,segment=4MiB] raw[recycle=off,segment=4MiB]" {
			t.Errorf("backends %s", got)
		}
		if c.ReadRatio != 0.25 || c.Duration.Seconds() != 2 || c.ValueSize != 64 || c.Seed != 42 || c.Repeats != 2 {
			t.Errorf("%s: %+v", c.Variant, c)
		}
	}
	want := []string{"load=closed:1,nodes=1", "load=closed:1,nodes=3", "load=search:p99<10ms,nodes=1", "load=search:p99<10ms,nodes=3", "load=curve,nodes=1", "load=curve,nodes=3"}
	if !slices.Equal(names, want) {
		t.Errorf("configurations %q, want %q", names, want)
	}
	if spec.Repeats != 2 || !spec.Keep || !slices.Equal(f.thresholds, []string{"raw:save.p99<5ms", "mem:errors<1"}) || f.repeats != 2 {
		t.Errorf("repeats %d, keep %v, thresholds %q", spec.Repeats, spec.Keep, f.thresholds)
	}
	if runs, _ := spec.Estimate(); runs < 2*4*2*(1+10+10) {
		t.Errorf("%d runs are estimated", runs)
	}
}

// TestSuiteOfOne is what the flags would make of it.
func TestSuiteOfOne(t *testing.T) {
	f, flags := runFlagSet(t, "--file", suiteText(t, "backends: raw,mem\nload: open:100\nstate-size: [1MiB, 10 entries]\nworkload: restart\nvalue-size: 1000\n"))
	spec, err := f.suite(flags)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Matrix) != 0 || spec.Load != bench.Open(100) || len(spec.Backends) != 2 || !slices.Equal(spec.StateSizes, []int64{1 << 20, 10_000}) {
		t.Errorf("%+v", spec)
	}
}

// TestNoWarmup: a warm-up of 0 is none, and not the default.
func TestNoWarmup(t *testing.T) {
	for given, want := range map[string]time.Duration{"0": 0, "2s": 2 * time.Second} {
		f, flags := runFlagSet(t, "--warmup", given)
		if spec, err := f.suite(flags); err != nil || spec.Warmup != want {
			t.Errorf("--warmup %s: %v, %v", given, spec.Warmup, err)
		}
	}
}

// TestSlowDisk: the worker of a run gets its slow disk, the result and the table
// name it, and with and without are two configurations.
func TestSlowDisk(t *testing.T) {
	o := raftbench(t, quick("--backends", "raw", "--file", suiteText(t, "slow-disk: [none, 'leader:+5ms']"))...)
	if o.code != 0 || !strings.Contains(o.stdout, "slow disk leader:+5ms") {
		t.Fatalf("exit code %d:\n%s%s", o.code, o.stdout, o.stderr)
	}
	slow := map[string]time.Duration{}
	for _, r := range read(t, o).Runs {
		slow[r.SlowDisk] = r.Save.P50
	}
	if len(slow) != 2 || slow["leader:+5ms"] < 5*time.Millisecond {
		t.Errorf("median Save by slow disk: %v", slow)
	}
}

func TestSuiteErrors(t *testing.T) {
	for text, want := range map[string]string{
		"colour: red":                    `unknown setting "colour"`,
		"Nodes: 3":                       `unknown setting "Nodes"`,
		"file: other.yaml":               `unknown setting "file"`,
		"resume: here":                   `unknown setting "resume"`,
		"nodes: 3\nnodes: 5":             `"nodes"`,
		"timeout: 0s":                    "--timeout 0",
		"nodes: three":                   "nodes:",
		"nodes: [1, 1]":                  "nodes: 1 is given twice",
		"nodes: []":                      "nodes: the list is empty",
		"nodes:":                         "nodes: the value is missing",
		"nodes: {a: 1}":                  "nodes:",
		"nodes: [[1]]":                   "nodes:",
		"nodes: [1, 99]":                 "nodes=99",
		"duration: [1s, 2s]":             "duration: want one value",
		"duration: long":                 "duration:",
		"keep: perhaps":                  "keep:",
		"load: [closed:1, bursty]":       "load=bursty",
		"slow-disk: [none, 'boss:+5ms']": "slow-disk=boss:+5ms",
		"slow-disk: 'follower:+5ms'\nnodes: [1, 3]":      "nodes=1",
		"workload: [propose, snapshot]\nnodes: 1":        "workload=snapshot",
		"backends: rocksdb":                              `unknown backend "rocksdb"`,
		"backends: [{params: {a: b}}]":                   "backends: a backend has no name",
		"backends: [{name: raw, colour: red}]":           `unknown field "colour"`,
		"backends: [{name: raw, params: {segment: {}}}]": "raw, segment",
		"backends: [raw, raw]":                           "backends: raw is given twice",
		"- a\n- b":                                       "not a suite",
		"a: [":                                           "not a suite",
		"read-ratio: [" + strings.Repeat("0.1, 0.2, ", 1) + "0.3]\nvalue-size: [16, 17, 18, 19, 20, 21, 22, 23, 24, 25]\nbatch: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\ngomaxprocs: [1, 2, 3, 4]": "more than 1000",
	} {
		f, flags := runFlagSet(t, "--file", suiteText(t, text))
		_, err := f.suite(flags)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "suite") || exitCode(err) != exitUsage {
			t.Errorf("%q: error %v, want %q and exit code 2", text, err, want)
		}
	}
	f, flags := runFlagSet(t, "--file", filepath.Join(t.TempDir(), "none.yaml"))
	if _, err := f.suite(flags); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("no file: %v", err)
	}
}

// FuzzSuite: what the decoder takes can be expanded, and each setting is one that
// a flag has.
func FuzzSuite(f *testing.F) {
	f.Add([]byte(wholeSuite))
	f.Add([]byte("nodes: [1, 1e3, -0.0, ~, !!str 3]"))
	f.Add([]byte("backends: {name: raw, params: {a: [1, 2], b: [c, d]}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("load: |\n  closed:1\nthreshold: 'x<1'"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, flags := runFlagSet(t)
		file, err := decodeSuite(data, flags)
		if err != nil {
			return
		}
		product := 1
		for name, values := range file {
			if flags.Lookup(name) == nil || len(values) == 0 {
				t.Errorf("%s: %q", name, values)
			}
			if slices.Contains(varying, name) {
				product *= len(values)
			}
		}
		combinations, err := file.combinations()
		if err == nil && len(combinations) != product || err != nil && product <= maxConfigs {
			t.Errorf("%d combinations of %v, error %v", len(combinations), file, err)
		}
	})
}

// TestKilledAndResumed kills raftbench in the middle of a suite; resumed, it makes
// the rest, and the result holds every run once.
func TestKilledAndResumed(t *testing.T) {
	suite := suiteText(t, "backends: [raw, mem]\nload: [closed:1, closed:8]\nnodes: 1\nrepeats: 3\nduration: 300ms\nwarmup: 50ms\n")
	cmd, _, stderr := start(t, "run", "--file", suite, "--out", "out")
	out := filepath.Join(cmd.Dir, "out", "result.json")
	finished := func() int {
		var r result.Result
		if data, err := os.ReadFile(out); err != nil || json.Unmarshal(data, &r) != nil {
			return 0
		}
		return len(r.Runs)
	}
	until(t, "the third run", func() bool { return finished() >= 3 })
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	before := finished()
	if before >= 12 {
		t.Fatalf("the suite was finished before it was killed\n%s", stderr)
	}
	again, stdout2, stderr2 := command(t, "run", "--resume", "out")
	again.Dir = cmd.Dir
	o := finish(t, again, stdout2, stderr2)
	if o.code != 0 || !strings.Contains(o.stderr, "12 runs in 3 blocks") {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	r := read(t, o)
	ids := map[string]int{}
	for _, run := range r.Runs {
		ids[run.ID]++
		if run.Verified == nil || !run.Verified.OK {
			t.Errorf("%s: verified %+v", run.ID, run.Verified)
		}
	}
	if len(r.Runs) != 12 || len(ids) != 12 || r.Interrupted || r.Planned != 12 {
		t.Errorf("%d runs of %v, interrupted %v, planned %d; %d before", len(r.Runs), ids, r.Interrupted, r.Planned, before)
	}
	if got := left(t, o.dir); got != "out" {
		t.Errorf("left behind: %s", got)
	}
	once, stdout3, stderr3 := command(t, "run", "--resume", "out", "--load", "closed:2")
	once.Dir = cmd.Dir
	if o := finish(t, once, stdout3, stderr3); o.code != exitUsage || !strings.Contains(o.stderr, "another suite") {
		t.Errorf("another suite: exit code %d:\n%s", o.code, o.stderr)
	}
}

// TestRestartWorkload opens logs whose writers ended well, and were killed.
func TestRestartWorkload(t *testing.T) {
	o := raftbench(t, "run", "--workload", "restart", "--state-size", "1MiB,100 entries", "--repeats", "1", "--backends", "raw,mem,etcd-wal", "--out", "out")
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	r := read(t, o)
	killed := 0
	for _, run := range r.Runs {
		if run.Restart == nil || run.Restart.Ready <= 0 || run.Verified == nil || !run.Verified.OK {
			t.Errorf("%s: %+v, verified %+v", run.ID, run.Restart, run.Verified)
		} else if run.Restart.Killed {
			killed++
		}
	}
	if len(r.Runs) != 8 || killed != 4 {
		t.Errorf("%d runs, %d killed", len(r.Runs), killed)
	}
}
