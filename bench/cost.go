package bench

import (
	"runtime"
	"time"

	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// usageNow is what the process has used so far. A figure that the system does not
// publish is left out of the run.
type usageNow struct {
	cpu     time.Duration
	cpuErr  error
	io      env.IO
	ioErr   error
	mem     runtime.MemStats
	logical int64
	network int64
	counted bool // the transport counts what it sends

	peak      int64 // of resident memory since the usage before
	peakReset bool  // and it counts anew from here
}

func (c *cluster) usage() *usageNow {
	u := &usageNow{logical: c.o.logical.Load()}
	if m, err := env.RSS(); err == nil {
		u.peak = m.Peak
	}
	u.peakReset = env.ResetPeakRSS() == nil
	runtime.ReadMemStats(&u.mem)
	u.cpu, u.cpuErr = env.CPUTime()
	u.io, u.ioErr = env.ProcIO()
	for _, m := range c.members {
		if s, ok := m.node.Transport().(node.StatsReporter); ok {
			u.network += s.Stats().Bytes
			u.counted = true
		}
	}
	return u
}

// fillCosts writes what was used between two moments. It is that of the whole
// process: all nodes, the load and the recorders.
func fillCosts(run *result.Run, before, after *usageNow) {
	pause := int64(after.mem.PauseTotalNs - before.mem.PauseTotalNs)
	run.GCPause = &pause
	logical := after.logical - before.logical
	run.Bytes = &result.Bytes{Logical: logical}
	if before.counted {
		sent := after.network - before.network
		run.Bytes.Network = &sent
	}
	if after.ioErr == nil && before.ioErr == nil {
		written := after.io.Sub(before.io).WriteBytes
		run.Bytes.Written = &written
		if logical > 0 && run.Durability != "none" {
			amp := float64(written) / float64(logical)
			run.WriteAmp = &amp
		}
	}
	if before.peakReset && after.peak > 0 {
		run.RSS = &after.peak
	}
	if run.Ops == 0 {
		return
	}
	if after.cpuErr == nil && before.cpuErr == nil {
		cpu := float64(after.cpu-before.cpu) / float64(run.Ops)
		run.CPUPerOp = &cpu
	}
	allocs := float64(after.mem.Mallocs-before.mem.Mallocs) / float64(run.Ops)
	run.AllocsPerOp = &allocs
}

// fillDisk writes what the run's files occupy, all nodes together. Space
// amplification is against what must be kept: the snapshot and the entries after
// it, on every node.
func (c *cluster) fillDisk(run *result.Run) {
	var disk, live int64
	for _, m := range c.members {
		n, err := env.DiskUsage(m.dir)
		if err != nil || n == 0 {
			return
		}
		disk += n
		st := m.node.Status()
		live += m.state.Bytes() + int64(st.Applied-st.Snapshot)*int64(c.payloads.Mean())
	}
	if run.Bytes == nil {
		run.Bytes = &result.Bytes{}
	}
	run.Bytes.Disk = &disk
	if live > 0 {
		amp := float64(disk) / float64(live)
		run.SpaceAmp = &amp
	}
}
