package bench

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/pebble"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/node"
)

// TestRunGroups: groups on one store and on stores of their own are measured,
// verified, and told apart.
func TestRunGroups(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"ready": func(*Spec) {},
		"async, open": func(s *Spec) {
			s.Loop, s.Load, s.Backends = node.LoopAsync, Open(500), s.Backends[:1]
		},
		"open, fast": func(s *Spec) { // which enqueues
			s.Load, s.Backends, s.Ops = Open(50_000), s.Backends[2:], 2000
		},
		"reads, snapshots": func(s *Spec) {
			s.Backends = s.Backends[:1]
			s.ReadRatio, s.SnapshotEntries, s.CatchUpEntries = 0.3, 100, 20
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := quick(t, pebble.Backend, pebble.Backend.ForGroups(true), mem.Backend)
			spec.Groups, spec.Ops, spec.NoCalibrate = 5, 300, true
			change(&spec)
			res := mustRun(t, spec)
			labels := map[string]bool{}
			for _, r := range res.Runs {
				label := backends.FormatName(r.Backend, r.Params)
				labels[label] = true
				if r.Groups != 5 || r.Ops == 0 || r.Errors > 0 || r.Save.Count == 0 {
					t.Errorf("%s: %d groups, %d operations, %d errors, %d saves", label, r.Groups, r.Ops, r.Errors, r.Save.Count)
				}
				if v := r.Verified; v == nil || !v.OK || v.Acked == 0 || v.Acked < r.Ops-r.Reads.Count {
					t.Errorf("%s: %d operations, verified %+v", label, r.Ops, v)
				}
				if r.Backend == "pebble" && (r.Fsync == nil || len(r.Fsync.Nodes) != 3 || r.FsyncsPerOp == nil) {
					t.Errorf("%s: syncs %+v, want those of three nodes", label, r.Fsync)
				}
			}
			want := []string{"pebble[group-storage=shared]", "pebble[group-storage=separate]", "mem[group-storage=separate]"}
			if spec.Backends[0].Name == "mem" {
				want = want[2:]
			}
			for _, label := range want[:len(spec.Backends)] {
				if !labels[label] {
					t.Errorf("no run of %s, but of %v", label, labels)
				}
			}
		})
	}
}

// TestLeadersAreSpread: every node leads its share of the groups, and every group
// gets its share of the load.
func TestLeadersAreSpread(t *testing.T) {
	spec := quick(t, mem.Backend)
	spec.Groups, spec.Load, spec.Ops = 6, Closed(12), 600
	if err := spec.Fill(); err != nil {
		t.Fatal(err)
	}
	one := One{Spec: spec, Backend: spec.Backends[0], RunDir: t.TempDir()}
	payloads, _, err := one.payloads()
	if err != nil {
		t.Fatal(err)
	}
	gs, err := startGroups(context.Background(), one, payloads)
	if err != nil {
		t.Fatal(err)
	}
	if n := gs.clusters[0].elections(); n < int64(spec.Groups) {
		t.Errorf("%d elections of %d leaders were seen", n, spec.Groups)
	}
	run := one.Header()
	if err := gs.clusters[0].measure(context.Background(), &run, func(Progress) {}); err != nil {
		t.Error(err)
	}
	leads := map[uint64]int{}
	for i, c := range gs.clusters {
		leads[c.o.proposer.Load().id]++
		acked := 0
		c.o.journal.each(func(_, _, _ uint64) { acked++ })
		if acked == 0 {
			t.Errorf("group %d got no operation", i+1)
		}
	}
	if len(leads) != 3 {
		t.Errorf("leaders by node: %v, want three nodes", leads)
	}
	if err := gs.stop(); err != nil {
		t.Error(err)
	}
}

// TestLostInOneGroup: what one group of a shared store lost is found.
func TestLostInOneGroup(t *testing.T) {
	b := pebble.Backend
	open := b.OpenShared
	b.OpenShared = func(opts backends.Options) (backends.Shared, error) {
		s, err := open(opts)
		return losing{s}, err
	}
	spec := quick(t, b)
	spec.Groups, spec.Ops, spec.NoCalibrate = 4, 300, true
	res := mustRun(t, spec)
	if v := res.Runs[0].Verified; v.OK || v.Lost == 0 || !strings.Contains(v.Detail, "group 3: node") {
		t.Errorf("verified %+v, want entries of group 3 lost", v)
	}
}

// losing is a store that loses the end of its third group.
type losing struct{ backends.Shared }

func (l losing) Group(id uint64) (backends.Storage, backends.State, error) {
	s, st, err := l.Shared.Group(id)
	if err == nil && id == 2 && len(st.Entries) > 5 {
		st.Entries = st.Entries[:len(st.Entries)-5]
	}
	return s, st, err
}

func TestGroupsUsage(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"too many":        func(s *Spec) { s.Groups = maxGroups + 1 },
		"too few":         func(s *Spec) { s.Groups = -1 },
		"other workload":  func(s *Spec) { s.Groups, s.Workload.Kind = 2, WorkloadAge },
		"other processes": func(s *Spec) { s.Groups, s.Placement, s.Transport = 2, PlacementProcess, "mem" },
		"one group":       func(s *Spec) { s.Backends = []backends.Backend{raw.Backend.ForGroups(true)} },
	} {
		spec := Spec{Backends: []backends.Backend{raw.Backend}, Dir: filepath.Join(t.TempDir(), "data")}
		change(&spec)
		if err := spec.Fill(); !errors.As(err, new(*UsageError)) {
			t.Errorf("%s: got %v, want a usage error", name, err)
		}
	}
	spec := Spec{Backends: []backends.Backend{pebble.Backend, raw.Backend}, Groups: 64}
	if err := spec.Fill(); err != nil {
		t.Fatal(err)
	}
	if n := spec.mostNodes(); n != 3*64 {
		t.Errorf("room for %d stores, want %d", n, 3*64)
	}
}
