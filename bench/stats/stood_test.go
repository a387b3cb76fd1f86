package stats

import (
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// stoodRuns are ten blocks of a and b; b is faster, but commits nothing in some.
func stoodRuns(nothingIn int) []result.Run {
	var runs []result.Run
	for block := 1; block <= 10; block++ {
		a := result.Run{Backend: "a", Block: block, Throughput: 10_000 + float64(block), Elapsed: time.Second}
		b := result.Run{Backend: "b", Block: block, Throughput: 12_000 + float64(block*7%5), Elapsed: time.Second}
		if block <= nothingIn {
			b.Throughput = 0
		}
		runs = append(runs, a, b)
	}
	return runs
}

// TestStood: a run that committed nothing is a run with a throughput of 0, and not one that
// was not measured.
func TestStood(t *testing.T) {
	for nothingIn, want := range []string{Faster, Inconclusive, Inconclusive} {
		for _, baseline := range []string{"a", "b"} {
			if baseline == "b" && want == Faster {
				want = Slower
			}
			table, err := Compare(stoodRuns(nothingIn), baseline, Options{Metrics: []string{"throughput"}})
			if err != nil || len(table) != 1 || table[0].Verdict != want {
				t.Errorf("nothing in %d blocks, against %s: %v, %+v", nothingIn, baseline, err, table)
			}
		}
		var a, b Side
		for _, r := range stoodRuns(nothingIn) {
			side := &a
			if r.Backend == "b" {
				side, r.Backend = &b, "a"
			}
			side.Runs = append(side.Runs, r)
		}
		table, err := CompareSuites(a, b, Options{Metrics: []string{"throughput"}, rounds: 500})
		if want == Slower {
			want = Faster
		}
		if err != nil || len(table) != 1 || table[0].Verdict != want {
			t.Errorf("nothing in %d blocks, suites: %v, %+v", nothingIn, err, table)
		}
	}
	for expr, want := range map[string]string{
		"b:throughput>=10k/s": "2 of 10 runs committed nothing", "b:errors<=0": "2 of 10 runs committed nothing", "a:throughput>=10k/s": "",
	} {
		d, err := Threshold(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := Evaluate([]Demand{d}, stoodRuns(2))[0]; got.OK != (want == "") || got.Reason != want {
			t.Errorf("%s: %+v", expr, got)
		}
	}
	if _, ok := throughput.Get(&result.Run{Workload: "restart"}); ok {
		t.Error("a run without a load has a throughput")
	}
}

// TestStoodLap: a lap in which nothing was committed is a part of its block.
func TestStoodLap(t *testing.T) {
	laps := stoodRuns(0)
	for i := range laps {
		laps[i].Lap = 1
		for lap := 2; lap <= 5; lap++ {
			r := laps[i]
			if r.Lap = lap; lap == 2 && r.Block == 1 {
				r.Throughput = 0
			}
			laps = append(laps, r)
		}
	}
	table, err := Compare(laps, "a", Options{Metrics: []string{"throughput"}})
	if err != nil || len(table) != 1 || table[0].Verdict != Faster {
		t.Errorf("one lap of five in which nothing was committed: %v, %+v", err, table)
	}
	if d, err := Threshold("b:throughput>=10k/s"); err != nil || !Evaluate([]Demand{d}, laps)[0].OK {
		t.Errorf("one lap of five in which nothing was committed misses a threshold: %v", err)
	}
}
