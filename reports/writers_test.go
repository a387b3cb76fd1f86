package reports

import (
	"bytes"
	"encoding/csv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/perf/benchfmt"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// mixed is a result with what tables find hard: a long name, a lost entry, a
// failed run, absent figures, three orders of magnitude.
func mixed() *result.Result {
	ops := map[string]float64{"etcd-wal": 26000, "bbolt": 9300, "a-strangers-log-structured-engine": 140, "raw": 29000, "mem": 121000}
	r := plain(10, ops, "etcd-wal", "bbolt", "a-strangers-log-structured-engine", "raw", "mem")
	entries, fsyncs := 12.3, 0.25
	for i := range r.Runs {
		run := &r.Runs[i]
		switch run.Backend {
		case "etcd-wal":
			run.EntriesPerSave, run.FsyncsPerOp = &entries, &fsyncs
			run.Snapshot = &result.Snapshot{Bytes: 4 << 20, Install: 412e6}
		case "bbolt":
			run.Params = map[string]string{"freelist": "array"}
			run.Flags = []string{"not_steady"}
		case "a-strangers-log-structured-engine":
			if run.Block == 4 {
				run.Verified.OK, run.Verified.Lost = false, 2
			}
			if run.Block == 5 {
				run.Error = "open: input/output error"
			}
		}
	}
	return r
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     *result.Result
		width int
		color bool
	}{
		{"mixed-100", mixed(), 100, false},
		{"mixed-60", mixed(), 60, false},
		{"mixed-200-color", mixed(), 200, true},
		{"three-100", plain(3, map[string]float64{"etcd-wal": 26000, "bbolt": 9300}, "etcd-wal", "bbolt"), 100, false},
		{"full-100", fullSample(t, 6, 7), 100, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Table(&b, c.r, TableOptions{Width: c.width, Color: c.color}); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("table", c.name+".txt"), b.String())
			if c.color {
				return
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > c.width {
					t.Errorf("%d columns: %q", n, line)
				}
			}
		})
	}
}

// tables writes r as Table does, any number of times: the comparisons, which take
// most of its time and are the same at every width, are made once.
func tables(r *result.Result) func(width int) string {
	s := newSite([]*result.Result{r})
	joined := s.joined()
	return func(width int) string {
		t := &tableWriter{TableOptions: TableOptions{Width: width}}
		for i, sc := range joined {
			if i > 0 {
				t.line("")
			}
			t.scenario(sc)
		}
		t.verdict(s.headline().judge())
		return t.b.String()
	}
}

// TestTableFits tries every width, down to where a single column does not fit.
func TestTableFits(t *testing.T) {
	t.Parallel()
	r := fullSample(t, 14, 7)
	table := tables(r)
	var b bytes.Buffer
	if err := Table(&b, r, TableOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	if b.String() != table(100) {
		t.Errorf("what is measured here is not what Table writes:\n%s", table(100))
	}
	for width := 40; width <= 240; width += 5 {
		for line := range strings.Lines(table(width)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("width %d: %d columns: %q", width, n, line)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := Markdown(&b, mixed()); err != nil {
		t.Fatal(err)
	}
	golden(t, "mixed.md", b.String())
	// A table is one only if every row has as many cells as the head.
	cells, rows := 0, 0
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if cells != 0 && n != cells {
			t.Errorf("%d cells, the head has %d: %s", n, cells, line)
		}
		cells = n
		rows++
	}
	if rows != 2+5 {
		t.Errorf("%d rows of tables", rows)
	}
}

// csvLines are the cells of runs.csv, the head first.
func csvLines(t *testing.T, r *result.Result) [][]string {
	t.Helper()
	var b bytes.Buffer
	if err := CSV(&b, r); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestCSV(t *testing.T) {
	r := mixed()
	r.Runs[0].Backend = "=cmd|' /C calc'!A0"
	lines := csvLines(t, r)
	if len(lines) != 1+len(r.Runs) {
		t.Fatalf("%d lines for %d runs", len(lines), len(r.Runs))
	}
	column := func(name string) int {
		i := slices.Index(lines[0], name)
		if i < 0 {
			t.Fatalf("no column %s in %q", name, lines[0])
		}
		return i
	}
	if got := lines[1][column("backend")]; got != "'=cmd|' /C calc'!A0" {
		t.Errorf("a formula stands as %q", got)
	}
	for i, run := range r.Runs {
		line := lines[i+1]
		if v, err := strconv.ParseFloat(line[column("throughput_ops")], 64); err != nil || v != run.Throughput {
			t.Errorf("run %d: throughput %q", i, line[column("throughput_ops")])
		}
		if v, err := strconv.ParseInt(line[column("response.p99_ns")], 10, 64); err != nil || v != int64(run.Response.P99) {
			t.Errorf("run %d: response p99 %q is not integer nanoseconds", i, line[column("response.p99_ns")])
		}
		if line[column("write_amp")] != "" {
			t.Errorf("run %d: a figure that was not measured is %q", i, line[column("write_amp")])
		}
	}
}

// TestCSVOfRestart: what a restart does not measure is an empty cell.
func TestCSVOfRestart(t *testing.T) {
	r := plain(1, map[string]float64{"bbolt": 9000}, "bbolt")
	r.Runs = append(r.Runs, result.Run{ID: "restart", Block: 1, Order: 2, Backend: "bbolt", Nodes: 1, Workload: "restart",
		Settings: map[string]string{"no-probe": "true", "duration": "2s"}, Restart: &result.Restart{Open: 1, Entries: 7, Bytes: 7}})
	lines := csvLines(t, r)
	for i, name := range lines[0] {
		if cell := lines[2][i]; cell == "0" {
			t.Errorf("%s of a restart is 0", name)
		} else if name == "settings" && cell != "duration=2s no-probe=true" {
			t.Errorf("settings are %q", cell)
		}
	}
}

func TestBenchfmt(t *testing.T) {
	var b bytes.Buffer
	if err := Benchfmt(&b, fullSample(t, 6, 7)); err != nil {
		t.Fatal(err)
	}
	reader := benchfmt.NewReader(bytes.NewReader(b.Bytes()), BenchFile)
	names := map[string]int{}
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Errorf("%v", rec)
		case *benchfmt.Result:
			names[string(rec.Name.Full())]++
			for _, v := range rec.Values {
				if reader.Units().GetBetter(v.Unit) == 0 && v.Unit != "entries/save" {
					t.Errorf("nothing says whether more %s is better", v.Unit)
				}
			}
		}
	}
	if err := reader.Err(); err != nil {
		t.Error(err)
	}
	if n := names["Propose/backend=bbolt/transport=mem/nodes=3/value=1024/load=closed:64-5"]; n != 7 {
		t.Errorf("%d lines of bbolt: %v", n, names)
	}
}

// TestBenchfmtName is the contract of go test -bench: where all runs have the
// same load, it is not in the name.
func TestBenchfmtName(t *testing.T) {
	r := plain(1, map[string]float64{"bbolt": 9000}, "bbolt")
	r.Runs[0].GOMAXPROCS = 2
	var b bytes.Buffer
	if err := Benchfmt(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\nBenchmarkPropose/backend=bbolt/transport=mem/nodes=3/value=1024-2 ") {
		t.Error(b.String())
	}
}

// TestBenchfmtTellsApart: runs that are not repeats of each other have names of their own.
func TestBenchfmtTellsApart(t *testing.T) {
	for what, second := range map[string]func(*result.Run){
		"killed":   func(r *result.Run) { r.Restart = &result.Restart{Open: time.Second, Killed: true} },
		"faults":   func(r *result.Run) { r.Faults = &result.Faults{Timeline: "at 1s: kill leader"} },
		"snapshot": func(r *result.Run) { r.SnapshotMode = "plain" },
		"rate":     func(r *result.Run) { r.Load.Rate = 8000 },
		"settings": func(r *result.Run) { r.Settings = map[string]string{"compressible": "0.5"} },
	} {
		r := plain(2, map[string]float64{"bbolt": 9000}, "bbolt")
		for i := range r.Runs {
			run := &r.Runs[i]
			run.SnapshotMode, run.Load = "stream", result.Load{Kind: "open", Rate: 1000, Step: 5, Point: "search step 5"}
			if what == "killed" {
				run.Workload, run.Restart = "restart", &result.Restart{Open: time.Second}
			}
		}
		var b bytes.Buffer
		names := func() int {
			b.Reset()
			if err := Benchfmt(&b, r); err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for line := range strings.Lines(b.String()) {
				if name, _, ok := strings.Cut(line, " "); ok && strings.HasPrefix(name, "Benchmark") {
					seen[name] = true
				}
			}
			return len(seen)
		}
		if n := names(); n != 1 {
			t.Errorf("%s: two repeats have %d names:\n%s", what, n, b.String())
		}
		second(&r.Runs[1])
		if n := names(); n != 2 {
			t.Errorf("%s: two settings have %d names:\n%s", what, n, b.String())
		}
	}
}

// TestBenchstat hands bench.txt to the real program.
func TestBenchstat(t *testing.T) {
	if testing.Short() {
		t.Skip("builds benchstat")
	}
	path := filepath.Join(t.TempDir(), BenchFile)
	if err := WriteFile(path, func(w io.Writer) error { return Benchfmt(w, sample(t, defaultSample())) }); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("go", "run", "golang.org/x/perf/cmd/benchstat", "-col", "/backend", path)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	out := stdout.String()
	if stderr.Len() > 0 || strings.Contains(out, "warning") || strings.Contains(out, "need >=") {
		t.Errorf("benchstat warns:\n%s%s", stderr.String(), out)
	}
	for _, want := range []string{"etcd-wal", "bbolt", "mem", "ops/s", "vs base", "p=0.000 n=10"} {
		if !strings.Contains(out, want) {
			t.Errorf("benchstat does not print %q:\n%s", want, out)
		}
	}
}

func TestCompareTable(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	var b bytes.Buffer
	if err := CompareTable(&b, r.Comparisons, TableOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("table", "compare-100.txt"), b.String())
	other := defaultSample()
	other.seed = 2
	table, err := stats.CompareSuites(stats.Side{Label: "before", Runs: r.Runs}, stats.Side{Label: "after", Runs: sample(t, other).Runs}, stats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := CompareTable(&b, table, TableOptions{Width: 72}); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("table", "suites-72.txt"), b.String())
}

// TestMerge keeps environments apart and the blocks of pooled results too.
func TestMerge(t *testing.T) {
	ops := map[string]float64{"etcd-wal": 26000, "bbolt": 9300}
	monday, tuesday, server := plain(6, ops, "etcd-wal", "bbolt"), plain(6, ops, "bbolt", "etcd-wal"), plain(6, ops, "etcd-wal", "bbolt")
	monday.ID, tuesday.ID, server.ID = "mon", "tue", "srv"
	tuesday.Env.FreeBytes, tuesday.Env.Before = 1, nil // changes by itself
	server.Env.Hostname = "server"
	groups := Merge([]*result.Result{monday, server, tuesday, monday})
	if len(groups) != 2 || len(groups[0].Results) != 2 || groups[1].Env.Hostname != "server" {
		t.Fatalf("%d groups", len(groups))
	}
	if monday.Runs[0].Env != "" || groups[0].Results[0].Runs[0].Env != "mon" || groups[0].Results[1].Runs[3].Env != "tue" {
		t.Error("the runs of pooled results do not say where they come from, or the results given were changed")
	}
	if n := newSite(groups[0].Results).scenarios[0].repeats(); n != 12 {
		t.Errorf("%d repeats of two suites of 6", n)
	}
	batch := *monday
	batch.ID, batch.Env.CPUScheduling = "bat", "SCHED_BATCH"
	if n := len(Merge([]*result.Result{monday, &batch})); n != 2 {
		t.Error("results under two ways to schedule the CPU are pooled")
	}
	hosts := *monday
	hosts.ID, hosts.Hosts = "hosts", []result.Host{{Env: monday.Env}, {Env: server.Env}}
	if n := len(Merge([]*result.Result{monday, &hosts})); n != 2 {
		t.Error("results of one host and of two are pooled")
	}
	tuesday.Env.Dirty, monday.Env.Dirty = true, true
	if n := len(Merge([]*result.Result{monday, tuesday})); n != 2 {
		t.Error("builds from changed sources are pooled")
	}
	tuesday.Env.Build, monday.Env.Build = "a", "a"
	if n := len(Merge([]*result.Result{monday, tuesday})); n != 1 {
		t.Error("results of one build from changed sources are not pooled")
	}
	tuesday.Env.Build = "b"
	if n := len(Merge([]*result.Result{monday, tuesday})); n != 2 {
		t.Error("two builds from changed sources are pooled")
	}
	var b bytes.Buffer
	if err := HTML(&b, monday, server); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 environments", `id="m1-verdict"`, `id="m2-scoreboard"`, "never pooled", "server: × floor"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page of two machines does not hold %q", want)
		}
	}
}

// pageBudget is the most that a page of 14 backends and 20 runs may weigh.
const pageBudget = 1_500_000

func TestPageSize(t *testing.T) {
	t.Parallel()
	spec := defaultSample()
	spec.engines, spec.blocks, spec.seconds = engines, 20, 61
	var b bytes.Buffer
	if err := HTML(&b, sample(t, spec)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", b.Len())
	if b.Len() > pageBudget {
		t.Errorf("%d bytes, more than %d", b.Len(), pageBudget)
	}
}

// BenchmarkHTML builds the page of 14 backends and 20 runs, which should take
// less than a second.
func BenchmarkHTML(b *testing.B) {
	spec := defaultSample()
	spec.engines, spec.blocks = engines, 20
	r := sample(b, spec)
	b.ReportAllocs()
	for b.Loop() {
		if err := HTML(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWriteFileIsAtomic keeps the old file where the new one cannot be made.
func TestWriteFileIsAtomic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return io.ErrClosedPipe
	})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	if err := WriteFile(filepath.Join(t.TempDir(), "gone", "x"), func(io.Writer) error { return nil }); err == nil {
		t.Error("a directory that is not there: no error")
	}
}
