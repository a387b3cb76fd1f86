package bench

import (
	"testing"

	"github.com/raftbench/raftbench/bench/result"
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
