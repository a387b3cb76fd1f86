package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/controls"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

// registerOthers adds, to the command that tests run, engines that break their promise: one
// that remembers nothing, and one that never syncs; and one that keeps it and makes a file
// where the command runs when it is opened for the third time.
func registerOthers() {
	forgetful := mem.Backend
	forgetful.Name, forgetful.Durability = "forgetful", backends.Synced
	counted := controls.Backend(controls.None)
	open := counted.Open
	counted.Name, counted.Open = "counted", func(o backends.Options) (backends.Storage, backends.State, error) {
		for _, name := range []string{"life-1", "life-2", "life-3"} {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
			if err == nil {
				_ = f.Close() // nothing is written to it
				break
			}
		}
		return open(o)
	}
	all.Backends = append(all.Backends, forgetful, controls.Backend(controls.NeverSyncs), counted)
}

// tiny is a suite of one run of a store in memory.
func tiny(more ...string) []string { return quick(append([]string{"--backends", "mem"}, more...)...) }

// exitCase is a command and the code that it has to end with.
type exitCase struct {
	name      string
	code      int
	args      []string
	says      string                    // part of what it prints
	before    func(t *testing.T)        // skips or fails where something is missing
	interrupt string                    // a file in the directory of the command; Ctrl-C comes once it is there,
	signal    syscall.Signal            // or this signal
	after     func(*testing.T, outcome) // looks at what else came of it
}

// TestExitCodes holds every exit code of the contract against the command.
func TestExitCodes(t *testing.T) {
	results := writeResults(t)
	at := func(name string) string { return filepath.Join(results, name) }
	cases := slices.Concat(exitsOfRun(t), exitsOfCompare(at), exitsOfPowercut(at), []exitCase{
		{name: "list", code: exitOK, args: []string{"list"}, says: "forgetful"},
		{name: "report", code: exitOK, args: []string{"report", at("before")}, says: "raw"},
		{name: "report of damage", code: exitFailure, args: []string{"report", at("damaged")}, says: "not a readable raftbench result"},
		{name: "unknown command", code: exitUsage, args: []string{"measure"}, says: `unknown command "measure"`},
	})
	seen := map[int]bool{}
	for _, tc := range cases {
		seen[tc.code] = true
		t.Run(tc.name, tc.run)
	}
	for _, code := range []int{exitOK, exitFailure, exitUsage, exitLost, exitInvalid, exitRegression, exitThreshold, exitInterrupted} {
		if !seen[code] {
			t.Errorf("no case ends with exit code %d", code)
		}
	}
}

func (tc exitCase) run(t *testing.T) {
	t.Parallel() // a run waits for its time most of the time
	if tc.before != nil {
		tc.before(t)
	}
	cmd, stdout, stderr := command(t, tc.args...)
	if tc.interrupt != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell starts it
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // fails where it has ended, as it should
		until(t, tc.interrupt, func() bool {
			_, err := os.Stat(filepath.Join(cmd.Dir, tc.interrupt))
			return err == nil
		})
		if tc.signal == 0 {
			tc.signal = syscall.SIGINT
		}
		// A terminal sends it to all processes of the command that are in its group.
		if err := syscall.Kill(-cmd.Process.Pid, tc.signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its exit code is looked at below
	}
	var o outcome
	if tc.interrupt == "" {
		o = finish(t, cmd, stdout, stderr)
	} else {
		o = outcome{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), dir: cmd.Dir}
	}
	if o.code != tc.code || !strings.Contains(o.stdout+o.stderr, tc.says) {
		t.Errorf("raftbench %s: exit code %d, want %d and %q:\n%s%s", strings.Join(tc.args, " "), o.code, tc.code, tc.says, o.stdout, o.stderr)
	}
	if tc.after != nil {
		tc.after(t, o)
	}
}

func exitsOfRun(t *testing.T) []exitCase {
	volatileDir := ""
	onTmpfs := func(t *testing.T) {
		if volatileDir == "" {
			unavailable(t, "no file system in memory is mounted on /dev/shm")
		}
	}
	if dir, err := os.MkdirTemp("/dev/shm", "raftbench-test-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		volatileDir = dir
	}
	inMemory := func(name string, more ...string) []string {
		return tiny(append([]string{"--dir", filepath.Join(volatileDir, name)}, more...)...)
	}
	missed := []string{"--threshold", "response.p99<1ns"}
	return []exitCase{
		{name: "run", code: exitOK, args: tiny("--threshold", "mem:response.p99<1h", "--threshold", "errors<1"), says: "ops/s"},
		{name: "no directory", code: exitFailure, args: tiny("--dir", "no/such"), says: "no such file"},
		{name: "bad flag", code: exitUsage, args: tiny("--nodes", "0"), says: "--nodes 0"},
		{name: "bad threshold", code: exitUsage, args: tiny("--threshold", "mem:speed>1"), says: "threshold"},
		{name: "lost, whatever else is wrong", code: exitLost, args: tiny(append(missed, "--strict", "--backends", "mem,forgetful")...),
			says: "an acknowledged entry was lost", after: lostIsWritten},
		{name: "invalid, whatever was missed", code: exitInvalid, before: onTmpfs, args: inMemory("strict", append(missed, "--strict")...), says: "the measurement is invalid"},
		{name: "invalid, not strict", code: exitOK, before: onTmpfs, args: inMemory("lenient"), says: "in memory, not on a disk"},
		{name: "threshold missed", code: exitThreshold, args: tiny(missed...), says: "threshold missed: response.p99<1ns (mem)", after: missIsWritten},
		{name: "threshold on what does not run", code: exitUsage, args: tiny("--threshold", "etcd-wal:save.p99<5ms"), says: "etcd-wal is not in this suite", after: nothingIsLeft},
		{name: "threshold on what is not measured", code: exitUsage, args: tiny("--threshold", "reads.p99<5ms"), says: "--read-ratio", after: nothingIsLeft},
		{name: "nothing committed", code: exitOK, args: tiny("--load", "open:0.1"), says: "nothing was committed"},
		{name: "nothing committed, strict", code: exitInvalid, args: tiny("--load", "open:0.1", "--strict"), says: "mem committed nothing in any run"},
		{name: "interrupted", code: exitInterrupted, args: tiny("--dir", "data", "--duration", "1h"), says: "interrupted after 0 of 1 runs",
			interrupt: "data/run-001-mem", after: nothingIsLeft},
		{name: "terminal closed", code: exitInterrupted, args: tiny("--dir", "data", "--duration", "1h"), says: "interrupted after 0 of 1 runs",
			before: func(t *testing.T) {
				if signal.Ignored(syscall.SIGHUP) {
					t.Skip("SIGHUP is ignored here, and so by the command (nohup)")
				}
			},
			interrupt: "data/run-001-mem", signal: syscall.SIGHUP, after: nothingIsLeft},
	}
}

func exitsOfPowercut(at func(string) string) []exitCase {
	cuts := func(backend string, more ...string) []string {
		return append([]string{"powercut", "--backends", backend, "--mode", "strict"}, more...)
	}
	return []exitCase{
		{name: "power cuts", code: exitLost, before: requireFUSE, says: "lost, changed, or could not open",
			args: cuts("control-never-syncs", "--cuts", "50", "--keep-disks", "kept"), after: diskIsKept},
		{name: "power cuts before anything was acknowledged", code: exitFailure, before: requireFUSE, says: "nothing was acknowledged",
			args: cuts("counted", "--cuts", "1", "--seed", nothingAcked, "--keep-disks", "kept"), after: nothingIsKept},
		{name: "power cuts of a run before anything was acknowledged", code: exitFailure, before: requireFUSE, says: "nothing was acknowledged",
			args: tiny("--backends", "counted", "--powercut", "1", "--seed", nothingAcked)},
		{name: "power cuts interrupted", code: exitInterrupted, before: requireFUSE, says: " of 1000000 power cuts of counted, mode strict: interrupt",
			args: cuts("counted", "--cuts", "1000000"), interrupt: "life-3", after: cutsAreTold},
		{name: "faults interrupted", code: exitInterrupted, before: requireFUSE, says: "interrupted after 0 of the faults of counted: interrupt",
			args: []string{"faults", "--backends", "counted", "--runs", "1000000"}, interrupt: "life-3"},
		{name: "an unknown fault", code: exitUsage, before: requireFUSE, args: []string{"faults", "--backends", "raw", "--fault", "gremlin"}, says: "want one of "},
		{name: "disks kept in a file", code: exitFailure, args: cuts("raw", "--keep-disks", at("damaged/result.json")), says: "not a directory"},
		{name: "disks kept where nothing can be", code: exitFailure, args: cuts("raw", "--keep-disks", at("damaged/result.json/disks")), says: "--keep-disks"},
	}
}

// nothingAcked is a seed whose first cut is in the first Open of a control.
const nothingAcked = "3"

func diskIsKept(t *testing.T, o outcome) {
	if got := left(t, filepath.Join(o.dir, "kept")); !strings.HasPrefix(got, "control-never-syncs-strict-seed1-cut") {
		t.Errorf("kept: %q", got)
	}
}

func nothingIsKept(t *testing.T, o outcome) {
	if got := left(t, o.dir); strings.Contains(got, "kept") {
		t.Errorf("left behind: %s", got)
	}
}

// cutsAreTold: two lives had ended when the third one was opened.
func cutsAreTold(t *testing.T, o outcome) {
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(lines) != 2 || len(fields) != 7 || fields[0] != "counted" {
		t.Fatalf("printed:\n%s", o.stdout)
	}
	if n, err := strconv.Atoi(fields[2]); err != nil || n < 2 || slices.Compare(fields[4:], []string{"0", "0", "0"}) != 0 {
		t.Errorf("after more than two cuts it printed:\n%s", o.stdout)
	}
}

func nothingIsLeft(t *testing.T, o outcome) {
	if got := left(t, o.dir); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func lostIsWritten(t *testing.T, o outcome) {
	for _, run := range read(t, o).Runs {
		if run.Verified == nil || run.Verified.OK != (run.Backend == "mem") || run.Backend == "forgetful" && run.Verified.Lost == 0 {
			t.Errorf("%s: verified %+v", run.Backend, run.Verified)
		}
	}
}

func missIsWritten(t *testing.T, o outcome) {
	r := read(t, o)
	if len(r.Thresholds) != 1 || r.Thresholds[0].OK || r.Thresholds[0].Value == nil {
		t.Errorf("thresholds %+v", r.Thresholds)
	}
}

func exitsOfCompare(at func(string) string) []exitCase {
	compare := func(args ...string) []string { return append([]string{"compare"}, args...) }
	ab := func(b string, more ...string) []string { return append(compare(at("before"), at(b)), more...) }
	return []exitCase{
		{name: "compare equal", code: exitOK, args: ab("same"), says: "1 equivalent"},
		{name: "compare faster", code: exitOK, args: ab("faster"), says: "1 faster"},
		{name: "compare inconclusive", code: exitOK, args: ab("scattered"), says: "1 inconclusive"},
		{name: "compare few", code: exitOK, args: ab("few"), says: "can decide nothing"},
		{name: "compare within the tolerance", code: exitOK, args: ab("bit-slower"), says: "1 slower"},
		{name: "compare beyond the tolerance", code: exitRegression, args: ab("bit-slower", "--tolerance", "0.02"), says: "regression: throughput_ops"},
		{name: "compare slower", code: exitRegression, args: ab("slower"), says: "regression: throughput_ops"},
		{name: "compare slower, tolerated", code: exitOK, args: ab("slower", "--tolerance", "0.5")},
		{name: "compare slower Save", code: exitRegression, args: ab("slow-save", "--metric", "save.p99"), says: "regression: save.p99_ns"},
		{name: "compare as JSON", code: exitRegression, args: ab("slower", "--json"), says: "regression", after: comparisonsAreJSON},
		{name: "compare two backends", code: exitRegression, args: compare("--in", at("two"), "raw", "bbolt"), says: "regression: throughput_ops of bbolt"},
		{name: "compare two backends the other way", code: exitOK, args: compare("--in", at("two"), "bbolt", "raw"), says: "1 faster"},
		{name: "compare what has nothing in common", code: exitFailure, args: ab("other-load"), says: "no configuration in common; the nearest differ in [load="},
		{name: "compare with nothing", code: exitFailure, args: ab("none"), says: "no such file"},
		{name: "compare with damage", code: exitFailure, args: ab("damaged"), says: "not a readable raftbench result"},
		{name: "compare an unknown metric", code: exitUsage, args: ab("same", "--metric", "speed"), says: "unknown metric"},
		{name: "compare an unknown backend", code: exitUsage, args: compare("--in", at("two"), "raw", "pebble"), says: "no run of"},
		{name: "compare with a bad tolerance", code: exitUsage, args: ab("same", "--tolerance", "-1"), says: "--tolerance"},
	}
}

func comparisonsAreJSON(t *testing.T, o outcome) {
	var table struct{ Comparisons []result.Comparison }
	if err := json.Unmarshal([]byte(o.stdout), &table); err != nil || len(table.Comparisons) != 1 {
		t.Errorf("%v, %d comparisons:\n%s", err, len(table.Comparisons), o.stdout)
	}
}

// writeResults makes results whose comparisons are known.
func writeResults(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, runs := range map[string][]result.Run{
		"before":     withSaves(series("raw", 10, 1, 1), 1),
		"same":       series("raw", 10, 1, 1),
		"faster":     series("raw", 10, 1.2, 1),
		"slower":     series("raw", 10, 0.8, 1),
		"bit-slower": series("raw", 10, 0.955, 1),
		"few":        series("raw", 5, 0.8, 1),
		"scattered":  series("raw", 10, 0.97, 30),
		"slow-save":  withSaves(series("raw", 10, 1, 1), 1.3),
		"two":        append(series("raw", 10, 1, 1), series("bbolt", 10, 0.5, 2)...),
		"other-load": atLoad(series("raw", 10, 1, 1), 8),
	} {
		r := &result.Result{Schema: result.Schema, ID: name, Command: []string{"raftbench", "run"}, Runs: runs}
		var text bytes.Buffer
		if err := reports.JSON(&text, r); err != nil {
			t.Fatal(err)
		}
		writeResult(t, filepath.Join(dir, name), text.Bytes())
	}
	writeResult(t, filepath.Join(dir, "damaged"), []byte(`{"schema": "raftbench/v1", "runs": [`))
	return dir
}

func writeResult(t *testing.T, dir string, data []byte) {
	t.Helper()
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, reports.ResultFile), data, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// series is so many runs at level times 1000 operations a second, spread evenly
// over ± scatter per cent of it, in an order without a trend.
func series(backend string, n int, level, scatter float64) []result.Run {
	var runs []result.Run
	for i := range n {
		off := 2*float64(7*i%n)/float64(n-1) - 1
		runs = append(runs, result.Run{
			ID: fmt.Sprintf("%03d-%s", i+1, backend), Block: i + 1, Backend: backend, Durability: string(backends.Synced),
			Load: result.Load{Kind: "closed", Clients: 64}, Nodes: 3, Workload: "propose",
			Throughput: 1000 * level * (1 + off*scatter/100), Verified: &result.Verified{OK: true},
		})
	}
	return runs
}

// withSaves adds a p99 of Save to the runs: factor milliseconds, and their own
// scatter.
func withSaves(runs []result.Run, factor float64) []result.Run {
	for i := range runs {
		p99 := time.Duration(factor * 1000 / runs[i].Throughput * float64(time.Millisecond))
		runs[i].Save = result.Latency{Count: 100_000, P99: p99}
	}
	return runs
}

func atLoad(runs []result.Run, clients int) []result.Run {
	for i := range runs {
		runs[i].Load.Clients = clients
	}
	return runs
}

// unavailable fails in CI, which must have everything, and skips elsewhere.
func unavailable(t *testing.T, why any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI must have what this test needs: %v", why)
	}
	t.Skip(why)
}

func requireFUSE(t *testing.T) {
	t.Helper()
	if err := powercut.Available(); err != nil {
		unavailable(t, err)
	}
}

// TestJudgeCuts: the worst that power cuts showed is told, with why they ended early.
func TestJudgeCuts(t *testing.T) {
	good, lost, nothing := result.PowerCut{Cuts: 9, Acked: 9}, result.PowerCut{Cuts: 9, Acked: 9, Lost: 1}, result.PowerCut{Cuts: 9}
	notOpened := result.PowerCut{Cuts: 9, OpenFailed: 1}
	stopped := &exitError{exitInterrupted, errors.New("interrupted")}
	for _, tc := range []struct {
		rows []result.PowerCut
		err  error
		code int
		says string
	}{
		{[]result.PowerCut{good}, nil, exitOK, ""},
		{[]result.PowerCut{good, nothing}, nil, exitFailure, "nothing was acknowledged"},
		{[]result.PowerCut{good, nothing}, stopped, exitInterrupted, "interrupted"},
		{[]result.PowerCut{nothing, lost}, stopped, exitLost, "interrupted"},
		{[]result.PowerCut{notOpened}, nil, exitLost, "could not open"},
		{nil, errors.New("no disk"), exitFailure, "no disk"},
	} {
		err := judgeCuts(tc.rows, tc.err)
		if code := exitCode(err); code != tc.code || !strings.Contains(fmt.Sprint(err), tc.says) {
			t.Errorf("%+v, %v: %v with exit code %d, want %d and %q", tc.rows, tc.err, err, code, tc.code, tc.says)
		}
	}
}

// TestExitCodeOfErrors: errors that carry no code of their own.
func TestExitCodeOfErrors(t *testing.T) {
	for code, err := range map[int]error{
		exitOK:          nil,
		exitUsage:       usageErrorf("bad"),
		exitInterrupted: fmt.Errorf("run: %w", context.Canceled),
		exitFailure:     errors.New("disk on fire"),
		exitLost:        errors.Join(errors.New("more"), &exitError{exitLost, errors.New("lost")}),
	} {
		if got := exitCode(err); got != code {
			t.Errorf("%v has exit code %d, want %d", err, got, code)
		}
	}
	var param error = &backends.ParamError{}
	if got := exitCode(fmt.Errorf("open: %w", param)); got != exitUsage {
		t.Errorf("a bad parameter has exit code %d, want %d", got, exitUsage)
	}
}
