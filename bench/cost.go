package bench

import (
	"runtime"
	"time"

	"github.com/raftbench/raftbench/bench/env"
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
