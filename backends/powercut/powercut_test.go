//go:build linux

package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/controls"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

func TestMain(m *testing.M) {
	powercut.MaybeChild(lookup)
	os.Exit(m.Run())
}

func require(t *testing.T) {
	t.Helper()
	if err := powercut.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must be able to cut the power: %v", err)
		}
		t.Skip(err)
	}
}

var modes = []disk.Mode{disk.Strict, disk.Ordered}

func TestSoundEngineLosesNothing(t *testing.T) {
	require(t)
	cuts := 60
	if raceEnabled {
		cuts = 20
	}
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			var trace strings.Builder
			row, err := powercut.Run(context.Background(), powercut.Config{
				Backend: controls.Backend(controls.None), Mode: mode, Cuts: cuts, Seed: 1, Trace: &trace,
			})
			if err != nil {
				t.Fatal(err)
			}
			if row.Lost+row.Wrong != 0 || row.OpenFailed != 0 || row.Cuts != cuts || row.Acked == 0 {
				t.Errorf("%+v\n%s", row, trace.String())
			}
			t.Logf("%d entries in %v", row.Acked, row.Elapsed)
		})
	}
}

// TestEveryControlIsCaught: a torture that lets a broken engine pass proves
// nothing. With RAFTBENCH_POWERCUT_SEEDS=10 every one of ten seeds must do it in
// 200 cuts (about two minutes).
func TestEveryControlIsCaught(t *testing.T) {
	require(t)
	seeds := int64(1)
	if s := os.Getenv("RAFTBENCH_POWERCUT_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range controls.Flaws {
		for _, mode := range f.Modes {
			t.Run(fmt.Sprintf("%s/%s", f.Flaw, mode), func(t *testing.T) {
				for seed := int64(1); seed <= seeds; seed++ {
					cuts := 200
					if seed == 1 {
						cuts = 50
					}
					row, err := powercut.Run(context.Background(), powercut.Config{
						Backend: controls.Backend(f.Flaw), Mode: mode, Cuts: cuts, Seed: seed,
					})
					if err != nil {
						t.Fatal(err)
					}
					if row.FirstBad == 0 || row.Detail == "" || row.Replay == "" {
						t.Errorf("seed %d: not caught in %d cuts: %+v", seed, row.Cuts, row)
					}
					t.Logf("seed %d: %s\n%s", seed, row.Detail, row.Replay)
				}
			})
		}
	}
}

// TestFaults: a sound engine stops, and the ones that do not are found out.
func TestFaults(t *testing.T) {
	require(t)
	bad := map[controls.Flaw]string{ // a fault that must show it
		controls.None:              "",
		controls.RetriesSync:       "EIO on fsync, once",
		controls.ForgetsErrors:     "EIO on write, once",
		controls.IgnoresReadErrors: "EIO on read at open",
		controls.NoChecksum:        "bit flip at rest",
	}
	runs := 3
	if raceEnabled {
		runs = 1
	}
	for flaw, shows := range bad {
		t.Run(string(flaw), func(t *testing.T) {
			cfg := powercut.FaultConfig{Backend: controls.Backend(flaw), Seed: 1, Runs: runs}
			if shows != "" {
				cfg.Only, cfg.Runs = []string{shows}, 5
			}
			rows, err := powercut.Faults(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				t.Logf("%-34s %-10s %v %s", r.Fault, r.Outcome, r.Outcomes, r.Detail)
				if r.OK != (r.Fault != shows) {
					t.Errorf("%s: ok is %t", r.Fault, r.OK)
				}
			}
			if flaw == controls.None && len(rows) != len(powercut.FaultNames()) {
				t.Errorf("%d rows of %d", len(rows), len(powercut.FaultNames()))
			}
		})
	}
}

// TestRemoteDisk: an engine in this process on a disk that another one serves.
func TestRemoteDisk(t *testing.T) {
	require(t)
	dir := t.TempDir()
	d, err := powercut.StartDisk(dir, powercut.DiskOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			d.Close()
		}
	}()
	entry := func(index uint64) []*raftpb.Entry {
		return []*raftpb.Entry{{Index: &index, Term: new(uint64(1)), Data: []byte("x")}}
	}
	open := func() (backends.Storage, backends.State) {
		t.Helper()
		s, st, err := controls.Backend(controls.None).Open(backends.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return s, st
	}
	s, _ := open()
	if err := s.Save(&raftpb.HardState{}, entry(1)); err != nil {
		t.Fatal(err)
	}
	if err := d.Inject(powercut.DiskFault{Op: "fsync", Path: "JOURNAL", Errno: int(syscall.EIO), Times: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(&raftpb.HardState{}, entry(2)); !errors.Is(err, syscall.EIO) {
		t.Errorf("Save on a disk that fails: %v", err)
	}
	if err := d.Inject(powercut.DiskFault{Op: "nonsense"}); err == nil {
		t.Error("an unknown operation was accepted")
	}
	if err := d.Cut(1); err != nil {
		t.Fatal(err)
	}
	s.Close() // it has the dead device open
	s, st := open()
	if len(st.Entries) < 1 {
		t.Errorf("%d entries after the cut", len(st.Entries))
	}
	if err := d.Fill(0); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<20)
	ents := entry(st.LastIndex() + 1)
	ents[0].Data = big
	if err := s.Save(&raftpb.HardState{}, ents); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Save on a full disk: %v", err)
	}
	s.Close()
	if err := d.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := d.Die(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadDir(dir); !errors.Is(err, syscall.EIO) {
		t.Errorf("ReadDir on a dead disk: %v", err)
	}
	closed = true
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("after Close: %v, %v", names, err)
	}
}
