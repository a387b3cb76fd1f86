package bench_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
)

// The benchmarks run the same runner as the command. Their directory is
// RAFTBENCH_DIR, or the one for temporary files, which on many machines is in
// memory: set it to a directory on the disk in question.
func benchDir(b *testing.B) string {
	parent := os.Getenv("RAFTBENCH_DIR")
	if parent == "" {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "raftbench-data-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// one makes a run of a benchmark.
func one(b *testing.B, spec bench.Spec) result.Run {
	b.Helper()
	spec.NoCalibrate = true
	if err := spec.Fill(); err != nil {
		b.Fatal(err)
	}
	o := bench.One{Spec: spec, Backend: spec.Backends[0], Block: 1, Order: 1, RunDir: benchDir(b)}
	if len(spec.StateSizes) > 0 {
		o.StateSize = spec.StateSizes[0]
	}
	run, err := bench.RunOne(context.Background(), o, nil)
	if err != nil {
		b.Fatal(err)
	}
	if run.Verified != nil && !run.Verified.OK {
		b.Fatalf("%s lost %d and has %d wrong: %s", run.Backend, run.Verified.Lost, run.Verified.Wrong, run.Verified.Detail)
	}
	return run
}

// BenchmarkPropose: one operation is one proposal, committed and applied.
func BenchmarkPropose(b *testing.B) {
	for _, be := range all.Backends {
		b.Run(fmt.Sprintf("backend=%s/transport=mem/nodes=3/value=1024", be.Name), func(b *testing.B) {
			run := one(b, bench.Spec{
				Backends: []backends.Backend{be}, Nodes: 3, ValueSize: 1024, Load: bench.Closed(64),
				NoWarmup: true, Ops: int64(b.N), NoSnapshots: true,
			})
			b.ReportMetric(float64(run.Elapsed)/float64(b.N), "ns/op")
			b.ReportMetric(float64(b.N)/run.Elapsed.Seconds(), "ops/s")
			latency(b, "", run.Response)
			latency(b, "save-", run.Save)
			if run.EntriesPerSave != nil {
				b.ReportMetric(*run.EntriesPerSave, "entries/save")
			}
			if run.FsyncsPerOp != nil {
				b.ReportMetric(*run.FsyncsPerOp, "fsyncs/op")
			}
			if run.WriteAmp != nil {
				b.ReportMetric(*run.WriteAmp, "write-amp")
			}
			if run.CPUPerOp != nil {
				b.ReportMetric(*run.CPUPerOp, "cpu-ns/op")
			}
		})
	}
}

// latency reports percentiles under the names of the contract: those of the
// response are per operation, those of Save are per Save.
func latency(b *testing.B, prefix string, l result.Latency) {
	if l.Count == 0 {
		return
	}
	unit := "ns/op"
	if prefix != "" {
		unit = "ns"
	}
	b.ReportMetric(float64(l.P50), prefix+"p50-"+unit)
	b.ReportMetric(float64(l.P99), prefix+"p99-"+unit)
}

// BenchmarkSave: one operation is one Save of so many entries of 1 KiB, by one
// writer, nothing else.
func BenchmarkSave(b *testing.B) {
	payloads, err := load.NewPayloads(1, 1024, 1024, 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, be := range all.Backends {
		for _, n := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("backend=%s/entries=%d", be.Name, n), func(b *testing.B) {
				s, _, err := be.Open(backends.Options{Dir: benchDir(b)})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				ents := make([]*raftpb.Entry, n)
				index, hist := uint64(0), load.NewHistogram()
				b.SetBytes(int64(n) * 1024)
				for b.Loop() {
					for i := range ents {
						index++
						ents[i] = &raftpb.Entry{Index: proto.Uint64(index), Term: proto.Uint64(1), Data: payloads.Make(index)}
					}
					hs := &raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(index - uint64(n))}
					start := time.Now()
					if err := s.Save(hs, ents); err != nil {
						b.Fatal(err)
					}
					load.Record(hist, time.Since(start))
				}
				latency(b, "save-", load.Summary(hist, false))
			})
		}
	}
}

// BenchmarkSnapshot: one operation is one install of a 16 MiB state on a follower
// that was cut off.
func BenchmarkSnapshot(b *testing.B) {
	for _, be := range all.Backends {
		b.Run(fmt.Sprintf("backend=%s/state=16MiB", be.Name), func(b *testing.B) {
			var sum result.Snapshot
			for range b.N {
				snap := one(b, bench.Spec{
					Backends: []backends.Backend{be}, Workload: bench.Workload{Kind: bench.WorkloadSnapshot}, StateSizes: []int64{16 << 20},
				}).Snapshot
				sum.Install += snap.Install
				sum.Save += snap.Save
				sum.Restore += snap.Restore
				sum.Bytes += snap.Bytes
			}
			n := float64(b.N)
			b.ReportMetric(float64(sum.Install)/n, "ns/op")
			b.ReportMetric(float64(sum.Save)/n, "save-ns/op")
			b.ReportMetric(float64(sum.Restore)/n, "restore-ns/op")
			b.ReportMetric(float64(sum.Bytes)/sum.Install.Seconds()/1e6, "MB/s")
		})
	}
}
