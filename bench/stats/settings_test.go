package stats

import (
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// twoLoops is blocks in which two backends ran under both loops; async makes one
// of them faster by a quarter, and the other one no different.
func twoLoops(blocks int) []result.Run {
	var runs []result.Run
	add := func(backend, loop string, block int, ops float64) {
		r := run(backend, block, ops*(1+0.001*float64(block%3)))
		r.Loop = loop
		runs = append(runs, r)
	}
	for b := 1; b <= blocks; b++ {
		drift := 1 + 0.1*float64(b%4) // of the block: must divide out
		add("wal", "ready", b, 1000*drift)
		add("wal", "async", b, 1250*drift)
		add("lsm", "async", b, 500*drift)
		add("lsm", "ready", b, 500*drift)
	}
	return runs
}

func TestCompareBy(t *testing.T) {
	table, err := CompareBy(twoLoops(10), "loop", "ready", "async", throughputOnly)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"backend=wal": Faster, "backend=lsm": Equivalent}
	if len(table) != len(want) {
		t.Fatalf("%d comparisons, want one for each backend: %+v", len(table), table)
	}
	for _, c := range table {
		backend, rest, _ := strings.Cut(c.Config, " ")
		if c.Verdict != want[backend] || c.Baseline != "ready" || c.Backend != "async" || c.N != 10 {
			t.Errorf("%s: %s against %s is %s (%.3f, n %d), want %s", backend, c.Backend, c.Baseline, c.Verdict, c.Ratio, c.N, want[backend])
		}
		if strings.Contains(rest, "loop=") {
			t.Errorf("what is compared is still in the configuration %q", rest)
		}
	}
}

// The placement that is the default has no name in a run, and one for who asks.
func TestCompareByPlacement(t *testing.T) {
	runs := twoLoops(6)
	for i := range runs {
		if runs[i].Loop == "async" {
			runs[i].Placement = "process"
		}
		runs[i].Loop = ""
	}
	table, err := CompareBy(runs, "placement", "in-process", "process", throughputOnly)
	if err != nil || len(table) != 2 {
		t.Errorf("%d comparisons, want one for each backend: %v", len(table), err)
	}
}

// Runs that differ in something else as well are not compared.
func TestCompareByNothingElse(t *testing.T) {
	runs := twoLoops(6)
	for i := range runs {
		if runs[i].Loop == "async" {
			runs[i].Nodes = 5
		}
	}
	table, err := CompareBy(runs, "loop", "ready", "async", throughputOnly)
	if err != nil || len(table) != 0 {
		t.Errorf("three nodes are compared with five: %v %v", table, err)
	}
}

func TestCompareByUnknown(t *testing.T) {
	for _, c := range [][3]string{{"colour", "ready", "async"}, {"loop", "ready", "eager"}, {"loop", "lazy", "async"}} {
		if _, err := CompareBy(twoLoops(6), c[0], c[1], c[2], Options{}); err == nil {
			t.Errorf("CompareBy %v: no error", c)
		}
	}
}
