// Package bench measures storage under a raft loop.
//
//	res, err := bench.Run(ctx, bench.Spec{
//		Backends: []backends.Backend{mine, etcdwal.Backend}, Nodes: 3,
//		Load: bench.Closed(64), ValueSize: 1024,
//		Warmup: time.Second, Duration: 5 * time.Second, Repeats: 3, Dir: dir,
//	})
//	for _, r := range res.Runs {
//		fmt.Println(r.Backend, r.Throughput, r.Response.P99) // string, ops/s, time.Duration
//	}
//
// A suite is made of blocks; each holds every backend once, in seeded random
// order. A run is a fresh cluster in a fresh directory: start, warm-up until
// steady, measure, drain, snapshot install, and then every acknowledged entry is
// looked for in what the nodes left on disk.
//
// run.go makes a suite of a [Spec], one.go a single run, cluster.go the nodes,
// observe.go the decorators that measure them from outside, verify.go the proof.
// The package does not know which engines exist.
package bench
