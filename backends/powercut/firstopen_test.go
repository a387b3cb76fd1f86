package powercut_test

import (
	"os"
	"path/filepath"
	"slices"
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
			b := all.Backends[slices.IndexFunc(all.Backends, func(b backends.Backend) bool { return b.Name == name })]
			b = b.With(powercut.SmallParams(b))
			interrupted := 0
			for _, skip := range []int{2, 3} { // syncs of directories before the one that fails, which is that of its parent
				for seed := range int64(6) {
					if firstOpenInterrupted(t, b, skip, seed) {
						interrupted++
					}
				}
			}
			if interrupted == 0 {
				t.Error("no Open was interrupted")
			}
		})
	}
}

// firstOpenInterrupted reports whether the first Open was.
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
	if err == nil { // it syncs fewer
		must(t, s.Close())
		return false
	}
	must(t, d.Heal())
	s, _, err = b.Open(backends.Options{Dir: dir})
	if err != nil {
		return true // it says what it cannot tell from damage, and has acknowledged nothing
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
