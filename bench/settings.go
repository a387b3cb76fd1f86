package bench

import (
	"fmt"
	"strconv"

	"github.com/raftbench/raftbench/backends"
)

// settings are those of [result.Run.Settings]: what figures depend on, differs from
// its default, and has no field of its own. s must be filled.
func (s *Spec) settings() map[string]string {
	def := Spec{Backends: []backends.Backend{{}}, Workload: s.Workload, Faults: s.Faults}
	def.defaults()
	out := map[string]string{}
	add := func(name string, differs bool, value any) {
		if differs {
			out[name] = fmt.Sprint(value)
		}
	}
	add("ops", s.Ops > 0, s.Ops)
	add("duration", s.Ops == 0 && s.Duration != def.Duration, s.Duration)
	add("warmup", s.Warmup != def.Warmup, s.Warmup)
	add("timeout", s.Timeout != def.Timeout, s.Timeout)
	add("compressible", s.Compressible != 0, strconv.FormatFloat(s.Compressible, 'g', -1, 64))
	add("snapshot-entries", s.SnapshotEntries != def.SnapshotEntries, s.SnapshotEntries)
	add("catch-up-entries", s.CatchUpEntries != def.CatchUpEntries, s.CatchUpEntries)
	add("gomaxprocs", s.GOMAXPROCS != 0, s.GOMAXPROCS)
	add("no-probe", !s.Probe, true)
	add("no-recorders", s.NoRecorders, true)
	add("cpuprofile", s.CPUProfile != "", true)
	add("trace", s.ExecTrace != "", true)
	if s.Workload.Kind == WorkloadAge {
		add("cycles", s.Cycles != def.Cycles, s.Cycles)
		add("burst", s.BurstBytes != def.BurstBytes, s.BurstBytes)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
