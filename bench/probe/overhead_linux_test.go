//go:build amd64 || arm64

package probe

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkOverhead makes rounds of calls with and without a probe in turn, and
// reports the median without and what the probe adds (the median of the rounds). The first is what a Save sees, the
// second a call that costs nothing itself, the third what every other system call
// of the process pays. ns/op includes starting the probes, and says nothing.
//
//	go test -run - -bench Overhead -benchtime 20x ./bench/probe
func BenchmarkOverhead(b *testing.B) {
	block := make([]byte, 1024)
	disk := func(dir string) func(*testing.B, map[int]string) func() {
		return func(b *testing.B, nodes map[int]string) func() {
			if dir == "" {
				dir = nodes[1]
			}
			f := create(b, dir, "log")
			return func() {
				if _, err := f.WriteAt(block, 0); err != nil {
					b.Fatal(err)
				}
				if err := syscall.Fdatasync(int(f.Fd())); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("call=write+fdatasync", func(b *testing.B) { overhead(b, 500, disk("")) })
	if dir, err := os.MkdirTemp("/dev/shm", "probe"); err == nil { // in memory
		defer os.RemoveAll(dir)
		b.Run("call=write+fdatasync-in-memory", func(b *testing.B) { overhead(b, 20_000, disk(dir)) })
	}
	b.Run("call=getppid", func(b *testing.B) {
		overhead(b, 20_000, func(*testing.B, map[int]string) func() { return func() { syscall.Getppid() } })
	})
}

// overhead makes b.N rounds of calls without and with a probe.
func overhead(b *testing.B, calls int, prepare func(*testing.B, map[int]string) func()) {
	nodes := nodeDirs(b, 1)
	call := prepare(b, nodes)
	samples := make([]int64, calls)
	round := func() (median float64) {
		runtime.GC() // what a start leaves behind is not the probe's work
		for i := range samples {
			begin := time.Now()
			call()
			samples[i] = int64(time.Since(begin))
		}
		slices.Sort(samples)
		return float64(samples[calls/2])
	}
	with := func() (median float64) {
		p := start(b, nodes)
		median = round()
		if _, err := p.Stop(); err != nil {
			b.Fatal(err)
		}
		return median
	}
	var off, added []float64
	for i := range b.N {
		var a, c float64
		if i%2 == 0 { // neither is always the first
			a, c = round(), with()
		} else {
			c, a = with(), round()
		}
		off, added = append(off, a), append(added, c-a)
	}
	slices.Sort(off)
	slices.Sort(added)
	b.ReportMetric(off[b.N/2], "p50-off-ns")
	b.ReportMetric(added[b.N/2], "added-ns")
	b.ReportMetric(100*added[b.N/2]/off[b.N/2], "added-%")
}
