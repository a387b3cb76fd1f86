package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

// The test binary is the command when this is set, so that the tests run what a
// user runs, worker processes included, without another build.
const asCommand = "RAFTBENCH_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		registerOthers()
		main()
	}
	os.Exit(m.Run())
}

// outcome is what a finished command left.
type outcome struct {
	code           int
	stdout, stderr string
	dir            string // where it was started
}

// command prepares raftbench in an empty directory.
func command(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Dir = t.TempDir()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, &stdout, &stderr
}

func raftbench(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd, stdout, stderr := command(t, args...)
	return finish(t, cmd, stdout, stderr)
}

func finish(t *testing.T, cmd *exec.Cmd, stdout, stderr *bytes.Buffer) outcome {
	t.Helper()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o := outcome{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), dir: cmd.Dir}
	for _, trace := range []string{"goroutine ", "panic:", "DATA RACE"} {
		if strings.Contains(o.stderr, trace) {
			t.Errorf("raftbench %v left a trace:\n%s", cmd.Args[1:], o.stderr)
		}
	}
	return o
}

// quick is a suite of seconds.
func quick(more ...string) []string {
	return append([]string{"run", "--backends", "raw,mem", "--duration", "300ms", "--warmup", "100ms", "--repeats", "1",
		"--load", "closed:8", "--out", "out"}, more...)
}

// left lists what a command left in its directory.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestRun(t *testing.T) {
	o := raftbench(t, quick("--duration", "1s")...)
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	for _, want := range []string{"raw", "mem", "ops/s", "p99.9", "verified"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("the table has no %q:\n%s", want, o.stdout)
		}
	}
	if !strings.HasPrefix(o.stderr, "2 runs in 1 block, about ") {
		t.Errorf("the plan is not said first:\n%s", o.stderr)
	}
	if got := left(t, o.dir); got != "out" {
		t.Errorf("left behind: %s", got)
	}
	if got := left(t, filepath.Join(o.dir, "out")); got != "bench.txt report.html result.json runs.csv" {
		t.Errorf("out holds %s", got)
	}
	r := read(t, o)
	if len(r.Runs) != 2 || len(r.Calibration) == 0 || r.Env.Cores == 0 || r.Seed != 1 {
		t.Errorf("%d runs, %d calibrations, %d cores, seed %d", len(r.Runs), len(r.Calibration), r.Env.Cores, r.Seed)
	}
	for _, run := range r.Runs {
		if run.Ops == 0 || run.Verified == nil || !run.Verified.OK || run.Verified.Acked < run.Ops {
			t.Errorf("%s: %d operations, verified %+v", run.Backend, run.Ops, run.Verified)
		}
		if run.Snapshot == nil || run.Snapshot.Install <= 0 || run.Snapshot.HashOK == nil || !*run.Snapshot.HashOK {
			t.Errorf("%s: snapshot %+v", run.Backend, run.Snapshot)
		}
		if run.Backend == "raw" && (run.Save.Count == 0 || run.SaveFloor <= 0 || run.Restart == nil) {
			t.Errorf("raw: save %+v, × floor %v, restart %v", run.Save.Count, run.SaveFloor, run.Restart)
		}
	}
	again := raftbench(t, "report", filepath.Join(o.dir, "out"), "-o", "again.html")
	if again.code != 0 || left(t, again.dir) != "again.html" {
		t.Errorf("report: exit code %d, left %s: %s", again.code, left(t, again.dir), again.stderr)
	}
}

func read(t *testing.T, o outcome) *result.Result {
	t.Helper()
	r, err := reports.Read(filepath.Join(o.dir, "out"))
	if err != nil {
		t.Fatalf("%v\n%s", err, o.stderr)
	}
	return r
}

func TestJSON(t *testing.T) {
	o := raftbench(t, quick("--json", "--quiet", "--backends", "mem")...)
	var r result.Result
	if err := json.Unmarshal([]byte(o.stdout), &r); o.code != 0 || err != nil || len(r.Runs) != 1 {
		t.Errorf("exit code %d, %v, %d runs", o.code, err, len(r.Runs))
	}
	if strings.Contains(o.stderr, "block") {
		t.Errorf("--quiet prints progress:\n%s", o.stderr)
	}
}

// TestUsage: input that no machine could run is told before any work starts.
func TestUsage(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown backend":   {[]string{"run", "--backends", "rocksdb"}, `unknown backend "rocksdb"`},
		"no backend":        {[]string{"run", "--backends", ""}, "no backend"},
		"twice":             {[]string{"run", "--backends", "raw,raw"}, "twice"},
		"unknown parameter": {[]string{"run", "--backends", "raw[colour=red]"}, "segment"},
		"bad parameter":     {[]string{"run", "--backends", "raw[recycle=maybe]"}, "recycle"},
		"open bracket":      {[]string{"run", "--backends", "raw[recycle=on"}, "name[key=value"},
		"unknown load":      {[]string{"run", "--load", "bursty:5"}, "closed:N"},
		"no clients":        {[]string{"run", "--load", "closed:0"}, "clients"},
		"negative rate":     {[]string{"run", "--load", "open:-5"}, "operations a second"},
		"rate not a number": {[]string{"run", "--load", "poisson:NaN"}, "operations a second"},
		"unknown command":   {[]string{"measure"}, "want one of agent, compare, "},
		"mistyped command":  {[]string{"rum"}, `"rum": is run meant?`},
		"help on nothing":   {[]string{"help", "measure"}, "want one of agent, compare, "},
		"help, mistyped":    {[]string{"help", "rum"}, `"rum": is run meant?`},
		"help, too deep":    {[]string{"help", "run", "fast"}, `raftbench run has no command "fast"`},
		"completion":        {[]string{"completion", "bsh"}, "bash"},
		"completion, more":  {[]string{"completion", "bash", "now"}, "takes no argument"},
		"no warm-up":        {[]string{"run", "--warmup", "1ns"}, "warm-up 1ns"},
		"no timeout":        {[]string{"run", "--timeout", "-1s"}, "timeout -1s"},
		"timeout 0":         {[]string{"run", "--timeout", "0"}, "--timeout 0: want more than 0"},
		"never a snapshot":  {[]string{"run", "--snapshot-entries", "0"}, "--snapshot-entries 0: want more than 0"},
		"nothing to catch":  {[]string{"run", "--catch-up-entries", "0"}, "--catch-up-entries 0: want more than 0"},
		"tiny timeout":      {[]string{"run", "--timeout", "1ns"}, "timeout 1ns"},
		"nothing to cut":    {[]string{"run", "--powercut", "1", "--backends", "mem"}, "no backend of mem keeps anything"},
		"size not used":     {[]string{"run", "--state-size", "large"}, `size "large"`},
		"compare itself":    {[]string{"compare", "--in", "a", "raw", "raw"}, "with itself"},
		"tolerate NaN":      {[]string{"compare", "a", "b", "--tolerance", "NaN"}, "--tolerance NaN"},
		"tolerate all":      {[]string{"compare", "a", "b", "--tolerance", "Inf"}, "--tolerance +Inf"},
		"noise of NaN":      {[]string{"compare", "a", "b", "--noise", "NaN"}, "--noise NaN"},
		"no power cuts":     {[]string{"run", "--powercut", "-1"}, "--powercut -1"},
		"negative size":     {[]string{"run", "--value-size", "-5"}, `size "-5"`},
		"half a range":      {[]string{"run", "--value-size", "1KiB-"}, `size "1KiB-"`},
		"value size 0":      {[]string{"run", "--value-size", "0"}, "size"},
		"value too small":   {[]string{"run", "--value-size", "8"}, "16 B"},
		"empty range":       {[]string{"run", "--value-size", "4KiB-1KiB"}, "range"},
		"no nodes":          {[]string{"run", "--nodes", "0"}, "--nodes 0"},
		"100 nodes":         {[]string{"run", "--nodes", "100"}, "1 to 9"},
		"no groups":         {[]string{"run", "--groups", "0"}, "--groups 0"},
		"group storage":     {[]string{"run", "--groups", "2", "--group-storage", "both"}, "separate"},
		"cannot share":      {[]string{"run", "--groups", "2", "--backends", "raw[group-storage=shared]"}, "no groups in one store"},
		"one group shared":  {[]string{"run", "--backends", "pebble[group-storage=shared]"}, "several groups"},
		"groups that age":   {[]string{"run", "--groups", "2", "--workload", "age"}, "propose"},
		"no repeats":        {[]string{"run", "--repeats", "0"}, "--repeats 0"},
		"unknown workload":  {[]string{"run", "--workload", "scan"}, "snapshot"},
		"trace not there":   {[]string{"run", "--workload", "trace:none"}, "none"},
		"trace of nothing":  {[]string{"run", "--workload", "trace"}, "trace:DIR"},
		"unknown transport": {[]string{"run", "--transport", "pigeon"}, "mem"},
		"unknown placement": {[]string{"run", "--placement", "moon"}, "in-process, process"},
		"mem between":       {[]string{"run", "--placement", "process", "--transport", "mem"}, "use grpc or rafthttp"},
		"hosts, no secret":  {[]string{"run", "--hosts", "127.0.0.1:1"}, "--token-file"},
		"hosts, bad port":   {[]string{"run", "--hosts", "127.0.0.1", "--token-file", os.Args[0]}, "host:port"},
		"hosts and process": {[]string{"run", "--hosts", "a:1", "--placement", "process"}, "exclude"},
		"hosts and dir":     {[]string{"run", "--hosts", "a:1", "--dir", "d"}, "--dir"},
		"secret, no hosts":  {[]string{"run", "--tls", "certs"}, "--hosts"},
		"placement hosts":   {[]string{"run", "--placement", "hosts"}, "--hosts"},
		"agent, no dir":     {[]string{"agent", "--token-file", "t"}, "--dir"},
		"agent, no secret":  {[]string{"agent", "--dir", "d", "--listen", "0.0.0.0:7400"}, "--token-file"},
		"agent, two":        {[]string{"agent", "--dir", "d", "--tls", "t", "--token-file", "t"}, "exclude"},
		"agent, no port":    {[]string{"agent", "--dir", "d", "--listen", "localhost"}, "host:port"},
		"agent, port 0":     {[]string{"agent", "--dir", "d", "--listen", "localhost:0"}, "--peer-listen"},
		"unknown loop":      {[]string{"run", "--loop", "fast"}, "async"},
		"read ratio":        {[]string{"run", "--read-ratio", "2"}, "read ratio"},
		"unknown flag":      {[]string{"run", "--speed", "11"}, "--speed"},
		"an argument":       {[]string{"run", "fast"}, "fast"},
		"bad threshold":     {[]string{"run", "--threshold", "save.p99=5ms"}, "threshold"},
		"report of nothing": {[]string{"report"}, "directory"},
		"compare one":       {[]string{"compare", "a"}, "two"},
		"compare by":        {[]string{"compare", "--by", "loop", "a", "b"}, "--in"},
		"disk for no time":  {[]string{"disk", "--duration", "0"}, "100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			o := raftbench(t, tc.args...)
			if o.code != exitUsage || !strings.Contains(o.stderr, tc.want) {
				t.Errorf("exit code %d, want %d; message should have %q:\n%s", o.code, exitUsage, tc.want, o.stderr)
			}
			if strings.Contains(o.stderr, " block") {
				t.Errorf("a plan is shown for what cannot be run:\n%s", o.stderr)
			}
			if got := left(t, o.dir); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// TestFullOutput: a command whose output a full disk swallowed did not end well.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		unavailable(t, err)
	}
	defer full.Close()
	for _, args := range [][]string{{"version"}, {"list"}, {"help"}, {"run", "--help"}, {"help", "disk"}, {"completion", "bash"}, {"agent", "--init", "certs"}} {
		cmd, _, stderr := command(t, args...)
		cmd.Stdout = full
		if o := finish(t, cmd, &bytes.Buffer{}, stderr); o.code != exitFailure || strings.Count(o.stderr, "no space left on device") != 1 {
			t.Errorf("raftbench %s: exit code %d, want %d and why:\n%s", strings.Join(args, " "), o.code, exitFailure, o.stderr)
		}
	}
}

func TestDir(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	foreign := filepath.Join(parent, "foreign")
	if err := errors.Join(os.WriteFile(file, []byte("mine"), 0o644), os.Mkdir(foreign, 0o755),
		os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("mine"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		dir, want string
		code      int
	}{
		{file, "is a file", exitUsage},
		{foreign, "not empty", exitUsage},
		{filepath.Join(parent, "no", "such"), "no such file", exitFailure},
	} {
		o := raftbench(t, quick("--dir", tc.dir)...)
		if o.code != tc.code || !strings.Contains(o.stderr, tc.want) {
			t.Errorf("--dir %s: exit code %d, want %d:\n%s", tc.dir, o.code, tc.code, o.stderr)
		}
	}
	if data, err := os.ReadFile(filepath.Join(foreign, "thesis.txt")); err != nil || string(data) != "mine" || left(t, foreign) != "thesis.txt" {
		t.Errorf("a foreign directory was touched: %v, %s", err, left(t, foreign))
	}

	kept := filepath.Join(parent, "kept")
	if o := raftbench(t, quick("--dir", kept, "--keep", "--backends", "raw")...); o.code != 0 {
		t.Fatalf("--keep: exit code %d:\n%s", o.code, o.stderr)
	}
	if got := left(t, kept); got != "raftbench.lock run-001-raw" {
		t.Errorf("--keep left %s", got)
	}
	if o := raftbench(t, quick("--dir", kept)...); o.code != exitUsage || !strings.Contains(o.stderr, "earlier run") {
		t.Errorf("a directory with kept data: exit code %d:\n%s", o.code, o.stderr)
	}

	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if o := raftbench(t, quick("--dir", empty, "--backends", "mem")...); o.code != 0 || left(t, empty) != "" {
		t.Errorf("an empty directory: exit code %d, left %s", o.code, left(t, empty))
	}
}

// start runs a suite that would take long, and waits until it is under way.
func start(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	cmd, stdout, stderr := command(t, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // fails where it has ended, as it should
	return cmd, stdout, stderr
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestInterrupt: Ctrl-C writes what was finished and leaves no data behind.
func TestInterrupt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cmd, _, stderr := start(t, quick("--dir", dir, "--repeats", "10000", "--backends", "mem")...)
	until(t, "the third run", func() bool {
		_, err := os.Stat(filepath.Join(dir, "run-003-mem"))
		return err == nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d (%v), want %d:\n%s", code, err, exitInterrupted, stderr)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is still there")
	}
	r := read(t, outcome{dir: cmd.Dir, stderr: stderr.String()})
	if len(r.Runs) < 2 || !r.Interrupted {
		t.Errorf("%d runs, interrupted %v", len(r.Runs), r.Interrupted)
	}
}

// TestTwoRuns: the second run on a directory says so and touches nothing.
func TestTwoRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cmd, _, _ := start(t, quick("--dir", dir, "--repeats", "10000", "--backends", "mem")...)
	until(t, "the first run", func() bool {
		_, err := os.Stat(filepath.Join(dir, "run-001-mem"))
		return err == nil
	})
	if o := raftbench(t, quick("--dir", dir)...); o.code != exitFailure || !strings.Contains(o.stderr, "in use") {
		t.Errorf("exit code %d, want %d:\n%s", o.code, exitFailure, o.stderr)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // TestInterrupt looks at how it ends
}

// TestWorkerEndsWithParent: a worker whose parent is gone stops by itself.
func TestWorkerEndsWithParent(t *testing.T) {
	cmd, stdout, stderr := command(t, "worker")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var f runFlags
	run := &cobra.Command{}
	f.register(run)
	if err := run.Flags().Parse([]string{"--backends", "mem", "--load", "closed:1", "--duration", "1h"}); err != nil {
		t.Fatal(err)
	}
	spec, err := f.spec()
	if err != nil {
		t.Fatal(err)
	}
	j := job{Backend: "mem"}
	j.One.Spec, j.One.RunDir = spec, cmd.Dir
	if err := json.NewEncoder(stdin).Encode(j); err != nil {
		t.Fatal(err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Errorf("the worker goes on without its parent\n%s%s", stdout, stderr)
	}
}
