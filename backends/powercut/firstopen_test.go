package powercut_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/powercut"
)

// TestFirstOpenInterrupted: what a store acknowledges survives a power cut although its
// first Open ended before a directory that it had made was durable, as a kill may end it.
func TestFirstOpenInterrupted(t *testing.T) {
	for _, name := range []string{"etcd-wal", "hashicorp-wal"} {
		t.Run(name, func(t *testing.T) {
			b, err := all.Lookup(name)
			must(t, err)
			b = b.With(powercut.SmallParams(b))
			looked := 0
			for _, skip := range []int{2, 3} { // where etcd-wal and hashicorp-wal have made a directory
				for seed := range int64(6) {
					if firstOpenInterrupted(t, b, skip, seed) {
						looked++
					}
				}
			}
			if looked == 0 {
				t.Error("no store was looked at whose first Open had been interrupted")
			}
		})
	}
}

// firstOpenInterrupted lets the first Open fail at a sync of a directory, after skip of them,
// and looks for what the store has acknowledged since, after a power cut. It is false where
// Open syncs fewer directories, or a second Open refuses what the first has left.
func firstOpenInterrupted(t *testing.T, b backends.Backend, skip int, seed int64) bool {
	root := t.TempDir()
	d, err := powercut.StartDisk(root, powercut.DiskOptions{})
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer d.Close()
	dir := filepath.Join(root, "data")
	must(t, os.Mkdir(dir, 0o700))
	f, err := os.Open(root)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, d.Inject(powercut.DiskFault{Op: "fsyncdir", Skip: skip, Times: 1, Errno: int(syscall.EIO)}))
	s, _, err := b.Open(backends.Options{Dir: dir})
	if err == nil {
		must(t, s.Close())
		return false
	}
	must(t, d.Heal())
	s, _, err = b.Open(backends.Options{Dir: dir})
	if err != nil {
		return false // nothing was acknowledged
	}
	one := uint64(1)
	must(t, s.Save(&raftpb.HardState{Term: &one, Vote: &one, Commit: new(uint64)}, []*raftpb.Entry{{Index: &one, Term: &one, Data: []byte("x")}}))
	must(t, s.Save(&raftpb.HardState{Term: &one, Vote: &one, Commit: &one}, nil))
	must(t, s.SaveSnap(&raftpb.Snapshot{Data: []byte("s"), Metadata: &raftpb.SnapshotMetadata{Index: &one, Term: &one, ConfState: &raftpb.ConfState{Voters: []uint64{1}}}}))
	must(t, d.Cut(seed))
	_ = s.Close() // the disk is gone
	s, st, err := b.Open(backends.Options{Dir: dir})
	if err != nil {
		t.Errorf("%d syncs, seed %d: after the cut: %v", skip, seed, err)
		return true
	}
	if st.LastIndex() != 1 || st.Snapshot == nil {
		t.Errorf("%d syncs, seed %d: after the cut the log ends at %d, snapshot %v", skip, seed, st.LastIndex(), st.Snapshot.GetMetadata())
	}
	must(t, s.Close())
	return true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
