package etcdtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/trace"
)

// member is the data directory of an etcd server after a load of small and large
// values from several clients.
func member(t *testing.T) string {
	t.Helper()
	const puts, clients = 4000, 16
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "member.etcd")
	cfg.LogLevel = "panic"
	any := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = any, any
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = any, any
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(e.Close)
	t.Cleanup(stop)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready within a minute")
	}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range puts / clients {
				size := 20 + rng.IntN(300)
				if rng.IntN(4) == 0 {
					size = 1000 + rng.IntN(8000)
				}
				_, err := e.Server.Put(context.Background(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%d-%d", c, i), Value: make([]byte, size)})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	stop()
	return cfg.Dir
}

// TestRealMember reads what a real etcd server wrote, compares it with what etcd's
// own reader finds, and replays it.
func TestRealMember(t *testing.T) {
	dir := member(t)
	got, err := trace.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := entriesOf(t, filepath.Join(dir, "member", "wal"))
	if !slices.Equal(got.Sizes, want) {
		t.Errorf("%d sizes, etcd's reader finds %d; deciles %v and %v", len(got.Sizes), len(want), load.Deciles(got.Sizes), load.Deciles(want))
	}
	if len(got.Batches) >= len(got.Sizes) || len(got.Batches) < len(got.Sizes)/64 {
		t.Errorf("%d entries in %d batches: 16 clients should share Saves", len(got.Sizes), len(got.Batches))
	}
	t.Logf("%d entries in %d batches, deciles %v", len(got.Sizes), len(got.Batches), load.Deciles(got.Sizes))

	// Whole passes over the log: a part of one has its own deciles, and how much a
	// time holds depends on the machine. Several, because a fast store makes some
	// operations more than it is asked for before the run ends, and those must not
	// move a decile.
	pass := int64(len(got.Sizes))
	for name, change := range map[string]func(*bench.Spec){
		"batches": func(*bench.Spec) {},
		"closed":  func(s *bench.Spec) { s.Load = bench.Closed(16) },
		"open":    func(s *bench.Spec) { s.Load, s.Ops = bench.Open(2000), pass },
		"three":   func(s *bench.Spec) { s.Nodes = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			spec := bench.Spec{
				Backends: []backends.Backend{raw.Backend, mem.Backend}, Nodes: 1, NoCalibrate: true, Repeats: 1, NoWarmup: true,
				Workload: bench.Workload{Kind: bench.WorkloadTrace, Dir: dir}, ReadTrace: trace.Read,
				Dir: filepath.Join(t.TempDir(), "data"), Ops: 8 * pass,
			}
			change(&spec)
			res, err := bench.Run(context.Background(), spec)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range res.Runs {
				check(t, r, got)
			}
		})
	}
}

func check(t *testing.T, r result.Run, want *load.Trace) {
	t.Helper()
	switch {
	case r.Trace == nil || r.Trace.Entries != int64(len(want.Sizes)) || r.Trace.Batches != int64(len(want.Batches)):
		t.Errorf("%s: trace %+v", r.Backend, r.Trace)
	case r.Ops < 500:
		t.Errorf("%s: only %d operations, which show nothing", r.Backend, r.Ops)
	case r.Trace.WorstGap > 0.02:
		t.Errorf("%s: %d operations; a decile is %.1f %% off: %v, want %v", r.Backend, r.Ops, 100*r.Trace.WorstGap, r.Trace.Replayed, r.Trace.Deciles)
	case r.Verified == nil || !r.Verified.OK:
		t.Errorf("%s: verified %+v", r.Backend, r.Verified)
	}
	mean := float64(len(want.Sizes)) / float64(len(want.Batches))
	if r.Load.Kind == "trace" && r.EntriesPerSave != nil && (*r.EntriesPerSave < 0.8*mean || *r.EntriesPerSave > 1.2*mean) {
		t.Errorf("%s: %.2f entries in a Save, %.2f in a batch", r.Backend, *r.EntriesPerSave, mean)
	}
	t.Logf("%-4s %6d operations, worst decile %.2f %% off, %v", r.Backend, r.Ops, 100*r.Trace.WorstGap, r.Trace.Replayed)
}

// entriesOf are the sizes of a log by etcd's own reader.
func entriesOf(t *testing.T, dir string) []int {
	t.Helper()
	w, err := wal.OpenForRead(nil, dir, &walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, _, ents, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, e := range ents {
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			sizes = append(sizes, len(e.GetData()))
		}
	}
	return sizes
}
