package bench

import (
	"io/fs"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// counters are what the process had used when the measured time began.
type counters struct {
	c            *cluster
	cpu, cpuEnd  time.Duration
	mem, memEnd  runtime.MemStats
	logicalStart int64
	logical      int64
}

func (c *cluster) startCounters() *counters {
	k := &counters{c: c, logicalStart: c.o.logical.Load()}
	runtime.ReadMemStats(&k.mem)
	k.cpu = cpuTime()
	return k
}

func (k *counters) end() {
	k.cpuEnd = cpuTime()
	k.logical = k.c.o.logical.Load() - k.logicalStart
	runtime.ReadMemStats(&k.memEnd)
}

// fill writes the costs per operation. They are those of the whole process: all
// nodes, the load and the recorders.
func (k *counters) fill(run *result.Run) {
	pause := int64(k.memEnd.PauseTotalNs - k.mem.PauseTotalNs)
	run.GCPause = &pause
	run.Bytes = &result.Bytes{Logical: k.logical}
	if run.Ops == 0 {
		return
	}
	cpu := float64(k.cpuEnd-k.cpu) / float64(run.Ops)
	allocs := float64(k.memEnd.Mallocs-k.mem.Mallocs) / float64(run.Ops)
	run.CPUPerOp, run.AllocsPerOp = &cpu, &allocs
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// diskUsage is what the files below dir occupy, in bytes.
func diskUsage(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file that went away is not on the disk
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total
}
