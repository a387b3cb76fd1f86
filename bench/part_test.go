package bench

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// TestWritten: the process's own count, unless the device shows that it cannot be.
func TestWritten(t *testing.T) {
	n := func(mib int64) *int64 { v := mib << 20; return &v }
	for name, c := range map[string]struct {
		process int64
		device  *int64
		shared  bool
		want    *int64
		source  string
	}{
		"agree":                      {500 << 20, n(520), false, n(500), "process"},
		"others write too":           {500 << 20, n(5000), false, n(500), "process"},
		"some waits in the cache":    {500 << 20, n(450), false, n(500), "process"},
		"a short run":                {10 << 20, n(0), false, n(10), "process"},
		"whole folios":               {14000 << 20, n(900), false, n(900), "device"},
		"whole folios, many":         {14000 << 20, n(900), true, nil, ""},
		"no device":                  {14000 << 20, nil, false, n(14000), "process"},
		"many, and agree with their": {100 << 20, n(900), true, n(100), "process"},
	} {
		got, source := written(c.process, c.device, c.shared)
		if source != c.source || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %v by %q, want %v by %q", name, got, source, c.want, c.source)
		}
	}
}

// TestMergeWritten: what several processes wrote is added up, and says where one of
// them was counted at the device.
func TestMergeWritten(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	var run result.Run
	mergeCosts(&run, []Part{{Logical: 10, Written: n(20), Source: writtenByProcess}, {Logical: 10, Written: n(40), Source: writtenToDevice}})
	if b := run.Bytes; *b.Written != 60 || b.WrittenSource != writtenToDevice || *run.WriteAmp != 3 {
		t.Errorf("%d by %q, amplification %v", *b.Written, b.WrittenSource, *run.WriteAmp)
	}
	run = result.Run{}
	mergeCosts(&run, []Part{{Logical: 10, Written: n(20), Source: writtenByProcess}, {Logical: 10}})
	if b := run.Bytes; b.Written != nil || b.WrittenSource != "" || run.WriteAmp != nil {
		t.Errorf("one part not known: %+v", b)
	}
}

// TestElections: those that were won while the run was measured count, on every node and
// in every process; the first one, and what happens in an install after it, do not.
// Where nothing but installs is measured, all after the first one do.
func TestElections(t *testing.T) {
	one := One{Spec: Spec{Nodes: 3, Backends: []backends.Backend{mem.Backend}}, Backend: mem.Backend}
	outcome := func(before, during, after int64) Outcome {
		c := newCluster(one, nil, nil, &tally{})
		c.o.elections.Add(before)
		c.before = c.usage()
		c.o.elections.Add(during)
		c.after = c.usage()
		c.o.elections.Add(after)
		return c.outcome()
	}
	for _, tc := range []struct {
		outcomes []Outcome
		want     int64
	}{
		{[]Outcome{outcome(1, 0, 0)}, 0},
		{[]Outcome{outcome(2, 0, 3)}, 0},
		{[]Outcome{outcome(1, 2, 1)}, 2},
		{[]Outcome{outcome(1, 0, 0), outcome(0, 1, 0), outcome(0, 0, 0)}, 1},
		{[]Outcome{outcome(0, 1, 0), outcome(0, 1, 0)}, 2},
	} {
		var run result.Run
		MergeOutcomes(&run, tc.outcomes)
		if run.LeaderChanges != tc.want || slices.Contains(run.Flags, "leader_changed") != (tc.want > 0) {
			t.Errorf("%+v: %d changes of leader, flags %v, want %d", tc.outcomes, run.LeaderChanges, run.Flags, tc.want)
		}
	}
	c := newCluster(one, nil, nil, &tally{})
	if c.o.elections.Add(1); c.outcome().Elections != 0 {
		t.Error("without a measured time the first election counts")
	}
	if c.o.elections.Add(1); c.outcome().Elections != 1 {
		t.Error("without a measured time the second election does not count")
	}
}

// TestMergeThrottled: of several processes the one counts that was stopped most, and
// more than one stop in a hundred periods of the quota is a flag.
func TestMergeThrottled(t *testing.T) {
	for _, tc := range []struct {
		shares []*float64
		want   *float64
		flag   bool
	}{
		{[]*float64{nil, nil}, nil, false},
		{[]*float64{new(0.0)}, new(0.0), false},
		{[]*float64{new(0.01), nil}, new(0.01), false},
		{[]*float64{nil, new(0.3), new(0.2)}, new(0.3), true},
	} {
		var parts []Part
		for _, share := range tc.shares {
			parts = append(parts, Part{Throttled: share})
		}
		var run result.Run
		if err := MergeParts(&run, parts); err != nil {
			t.Fatal(err)
		}
		if got, want := run.Throttled, tc.want; (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%d parts: throttled %v, want %v", len(parts), got, want)
		}
		if slices.Contains(run.Flags, "throttled") != tc.flag {
			t.Errorf("%d parts: flags %v", len(parts), run.Flags)
		}
	}
}

// TestMergeChosen: what nodes chose is said once where they agree, and all of it where
// they do not.
func TestMergeChosen(t *testing.T) {
	var run result.Run
	err := MergeParts(&run, []Part{
		{Chosen: []map[string]string{{"io": "direct", "sync": "dsync"}}}, {},
		{Chosen: []map[string]string{{"io": "direct", "sync": "dsync"}, {"io": "buffered", "sync": "dsync"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"io": "buffered, direct", "sync": "dsync"}; !maps.Equal(run.Chosen, want) {
		t.Errorf("chosen: %q, want %q", run.Chosen, want)
	}
	run = result.Run{}
	if err := MergeParts(&run, []Part{{}, {}}); err != nil || run.Chosen != nil {
		t.Errorf("nobody chose anything: %v, %v", run.Chosen, err)
	}
}

// TestUsedInParts: what passed between two measured times is in no figure of their sum.
func TestUsedInParts(t *testing.T) {
	at := func(n int64) *usageNow {
		u := &usageNow{cpu: time.Duration(n), io: env.IO{WriteBytes: 2 * n}, device: 3 * n, logical: 4 * n, peak: n % 50, peakReset: true,
			network: node.TransportStats{Messages: 5 * n, Bytes: 6 * n}, counted: true}
		u.mem.Mallocs, u.mem.PauseTotalNs = uint64(7*n), uint64(8*n)
		return u
	}
	one := One{Spec: Spec{Nodes: 1, Backends: []backends.Backend{mem.Backend}}, Backend: mem.Backend}
	c := newCluster(one, nil, nil, &tally{})
	c.used(at(10), at(15))
	c.used(at(100), at(107))
	c.used(at(1000), at(1001))
	const n = 5 + 7 + 1
	p := c.part()
	if p.CPU == nil || *p.CPU != n || p.Logical != 4*n || p.Mallocs != 7*n || p.GCPause != 8*n || p.Network == nil || p.Network.Messages != 5*n || p.Network.Bytes != 6*n {
		t.Errorf("%+v, network %+v", p, p.Network)
	}
	if p.Written == nil || *p.Written != 2*n || p.Peak == nil || *p.Peak != 15 {
		t.Errorf("written %v, peak %v", p.Written, p.Peak)
	}
}
