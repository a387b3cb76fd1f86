package reports

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// networked is a suite of which every run is made with three transports.
func networked(t *testing.T) *result.Result {
	spec := defaultSample()
	spec.engines, spec.blocks = engines[:2], 3
	r := sample(t, spec)
	var runs []result.Run
	for _, run := range r.Runs {
		for i, transport := range []string{"mem", "grpc", "rafthttp"} {
			with := run
			cpu, bytes, messages := 20_000*float64(1+i), 2048+10*float64(i), 0.12
			with.ID, with.Transport, with.CPUPerOp = run.ID+"-"+transport, transport, &cpu
			with.Throughput = run.Throughput / float64(1+i)
			with.Network = &result.Network{BytesPerOp: &bytes, MessagesPerOp: &messages,
				RTT: result.Latency{Count: 2000, P50: time.Duration(1+30*i) * time.Microsecond}}
			runs = append(runs, with)
		}
	}
	r.Runs = runs
	compareSample(t, r)
	return r
}

// lines that hold all of some words.
func linesWith(text string, words ...string) int {
	n := 0
	for line := range strings.Lines(text) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// TestSideBySide: transports are one table everywhere, each beside what it cost, and
// the rows of a backend together.
func TestSideBySide(t *testing.T) {
	r := networked(t)
	var text, md, html bytes.Buffer
	if err := Table(&text, r, TableOptions{Width: 200}); err != nil {
		t.Fatal(err)
	}
	if n := linesWith(text.String(), "backend", "transport", "ops/s"); n != 1 || strings.Contains(text.String(), "transport mem") {
		t.Errorf("%d tables:\n%s", n, text.String())
	}
	var order []string
	for line := range strings.Lines(text.String()) {
		if f := strings.Fields(line); len(f) > 8 && (f[1] == "mem" || f[1] == "grpc" || f[1] == "rafthttp") {
			order = append(order, f[0]+" "+f[1])
		}
	}
	if got := strings.Join(order, ", "); got != "etcd-wal mem, etcd-wal grpc, etcd-wal rafthttp, bbolt mem, bbolt grpc, bbolt rafthttp" {
		t.Errorf("rows %s", got)
	}
	if linesWith(text.String(), "CPU, µs", "sent, KiB", "messages", "idle, µs") != 1 || linesWith(text.String(), "bbolt", "rafthttp", "60.0", "61.0") != 1 {
		t.Errorf("the transports' costs are missing:\n%s", text.String())
	}
	if err := Markdown(&md, r); err != nil {
		t.Fatal(err)
	}
	if linesWith(md.String(), "| backend | transport |") != 1 || linesWith(md.String(), "| etcd-wal | grpc |") != 1 {
		t.Errorf("Markdown:\n%s", md.String())
	}
	if err := HTML(&html, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Side by side: ", "takes the least CPU with mem: 20.0\u00a0µs an operation; 2.00× with grpc; 3.00× with rafthttp", "etcd-wal · rafthttp"} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	// What does not differ has no column, and mem alone no network.
	var plain bytes.Buffer
	if err := Table(&plain, sample(t, defaultSample()), TableOptions{}); err != nil {
		t.Fatal(err)
	}
	if linesWith(plain.String(), "backend", "transport") != 0 || linesWith(plain.String(), "messages") != 0 {
		t.Errorf("one transport:\n%s", plain.String())
	}
}

// TestLoopsSideBySide: every setting that is joinable has a column of its own, and runs
// of before there was --raft count as those of raft.Node.
func TestLoopsSideBySide(t *testing.T) {
	spec := defaultSample()
	spec.engines, spec.blocks = engines[:1], 3
	r := sample(t, spec)
	var runs []result.Run
	for _, run := range r.Runs {
		for _, loop := range []string{"ready", "async"} {
			for _, raft := range []string{"", "rawnode"} {
				with := run
				with.ID, with.Loop, with.Raft = run.ID+"-"+loop+"-"+raft, loop, raft
				runs = append(runs, with)
			}
		}
	}
	r.Runs = runs
	var text bytes.Buffer
	if err := Table(&text, r, TableOptions{Width: 200}); err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{{"backend", "loop", "raft", "ops/s"}, {"etcd-wal", "ready", " node "}, {"etcd-wal", "async", "rawnode"}} {
		if linesWith(text.String(), words...) != 1 {
			t.Errorf("no line, or several, with %q:\n%s", words, text.String())
		}
	}
}

// TestFaults: runs with faults are apart from those without, and show what happened.
func TestFaults(t *testing.T) {
	spec := defaultSample()
	spec.engines, spec.blocks = engines[:2], 3
	r := sample(t, spec)
	back := 1230 * time.Millisecond
	runs := r.Runs
	for _, run := range r.Runs {
		run.ID += "-faults"
		run.Errors, run.LeaderChanges = 12, 1
		run.Faults = &result.Faults{Timeline: "at 2s: cut leader-*; at 5s: heal", Before: 1000, Stall: 1270 * time.Millisecond, Recovery: &back,
			Events: []result.FaultEvent{{T: 3 * time.Second, Text: "cut leader-*", Node: 2, Stall: 1270 * time.Millisecond, Recovery: &back}, {T: 6 * time.Second, Text: "heal"}}}
		runs = append(runs, run)
	}
	r.Runs = runs
	compareSample(t, r)
	var text, html bytes.Buffer
	if err := Table(&text, r, TableOptions{Width: 200}); err != nil {
		t.Fatal(err)
	}
	if linesWith(text.String(), "with faults (at 2s: cut leader-*; at 5s: heal)") != 1 || linesWith(text.String(), "bbolt", "1.27", "1.23", "1.00", "12") != 1 || linesWith(text.String(), "operations failed") != 0 {
		t.Errorf("the table says\n%s", text.String())
	}
	if err := HTML(&html, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"etcd-wal stands still for 1.27\u00a0s at most; where its rate came back before the next event, that took 1.23\u00a0s at most", "cut leader-*", "node 2", "not before the next event"} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// TestSettingsTellApart: runs of other settings are no repeats, and titles say in what
// they differ, but nothing that all have.
func TestSettingsTellApart(t *testing.T) {
	r := plain(4, map[string]float64{"bbolt": 9000}, "bbolt")
	for i := range r.Runs {
		r.Runs[i].Settings = map[string]string{"duration": "2s"}
		if i >= 2 {
			r.Runs[i].Settings["compressible"] = "0.5"
		}
	}
	scenarios := newSite([]*result.Result{r}).scenarios
	if len(scenarios) != 2 || len(scenarios[0].rows[0].runs) != 2 {
		t.Fatalf("%d scenarios", len(scenarios))
	}
	if got, want := scenarios[1].title(), scenarios[0].title()+", compressible 0.5"; got != want || strings.Contains(got, "2s") {
		t.Errorf("the title is %q, want %q", got, want)
	}
}
