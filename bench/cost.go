package bench

import (
	"cmp"
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
	device  int64 // written to the device
	devErr  error
	quota   env.Quota
	mem     runtime.MemStats
	logical int64
	won     int64 // elections
	network node.TransportStats
	counted bool // the transport counts what it sends

	peak      int64 // of resident memory since the usage before
	peakReset bool  // and it counts anew from here
}

func (c *cluster) usage() *usageNow {
	u := &usageNow{logical: c.o.logical.Load(), won: c.elections()}
	u.device, u.devErr = env.DeviceWritten(c.one.RunDir) // before CPU time: it reads files
	if m, err := env.RSS(); err == nil {
		u.peak = m.Peak
	}
	u.peakReset = env.ResetPeakRSS() == nil
	u.quota = env.CPUQuota()
	runtime.ReadMemStats(&u.mem)
	u.cpu, u.cpuErr = env.CPUTime()
	u.io, u.ioErr = env.ProcIO()
	u.network, u.counted = c.sent()
	return u
}

// used adds what was used from begin to end to what was used before, which may be some
// time ago: what passed between the two was not measured.
func (c *cluster) used(begin, end *usageNow) {
	if c.before == nil {
		c.before, c.after = begin, end
		return
	}
	c.before.skip(c.after, begin)
	end.peak = max(end.peak, c.after.peak)
	c.after = end
}

// skip moves u on by what was used between two moments.
func (u *usageNow) skip(from, to *usageNow) {
	u.cpu += to.cpu - from.cpu
	u.cpuErr = cmp.Or(u.cpuErr, from.cpuErr, to.cpuErr)
	u.io.WriteBytes += to.io.WriteBytes - from.io.WriteBytes
	u.ioErr = cmp.Or(u.ioErr, from.ioErr, to.ioErr)
	u.device += to.device - from.device
	u.devErr = cmp.Or(u.devErr, from.devErr, to.devErr)
	u.mem.PauseTotalNs += to.mem.PauseTotalNs - from.mem.PauseTotalNs
	u.mem.Mallocs += to.mem.Mallocs - from.mem.Mallocs
	u.logical += to.logical - from.logical
	u.network = u.network.Add(to.network.Sub(from.network))
}

// sent is what the transports of all nodes have sent so far; counted is false
// where one of them does not count.
func (c *cluster) sent() (sum node.TransportStats, counted bool) {
	if c.groups != nil {
		return c.groups.net.Stats()
	}
	for _, m := range c.members {
		s, ok := m.counts()
		if !ok {
			return node.TransportStats{}, false
		}
		if !m.down { // else faults have it
			sum = sum.Add(s)
		}
	}
	if c.faults != nil {
		sum = sum.Add(c.faults.sent)
	}
	return sum, c.one.Nodes > 1
}

// counts is what the transport of one node has sent; false where it does not count.
func (m *member) counts() (node.TransportStats, bool) {
	t, ok := m.node.Transport().(interface{ wrapped() node.Transport })
	if !ok {
		return node.TransportStats{}, false
	}
	s, ok := t.wrapped().(node.StatsReporter)
	if !ok {
		return node.TransportStats{}, false
	}
	return s.Stats(), true
}
