package env

import (
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/raftbench/raftbench/bench/result"
)

// Ticks count the CPU time of the whole machine since boot.
type Ticks struct{ total, steal float64 }

// Pressure says how busy the machine is. StealShare is since the given ticks, or
// since boot if they are the zero value.
func Pressure(since Ticks) result.Pressure { return machine.pressure(since) }

// Now reads the ticks to give to a later [Pressure].
func Now() Ticks { return machine.ticks() }

func (t tree) pressure(since Ticks) result.Pressure {
	var p result.Pressure
	if avg, err := load.Avg(); err == nil {
		p.Load1 = avg.Load1
	}
	if m, err := mem.VirtualMemory(); err == nil {
		mb := int64(m.Available >> 20)
		p.AvailableMB = &mb
	}
	p.CPUSome10, p.IOSome10, p.MemSome10 = t.some10("cpu"), t.some10("io"), t.some10("memory")
	if now := t.ticks(); now.total > since.total {
		share := (now.steal - since.steal) / (now.total - since.total)
		p.StealShare = &share
	}
	return p
}

// some10 reads "some avg10=1.23 …" of a pressure file; nil where the kernel has
// none.
func (t tree) some10(resource string) *float64 {
	for line := range strings.Lines(t.read("proc/pressure", resource)) {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		value, _, _ := strings.Cut(rest, " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			return &v
		}
	}
	return nil
}

// ticks reads the first line of /proc/stat: user nice system idle iowait irq
// softirq steal; guest time, which follows, is already part of user and nice.
func (t tree) ticks() Ticks {
	first, _, _ := strings.Cut(t.read("proc/stat"), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return Ticks{}
	}
	var out Ticks
	for i, f := range fields[1:9] {
		v, _ := strconv.ParseFloat(f, 64)
		out.total += v
		if i == 7 {
			out.steal = v
		}
	}
	return out
}
