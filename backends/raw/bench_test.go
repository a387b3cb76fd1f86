package raw

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// BenchmarkFloor puts Save beside the bare system calls: one write of as many
// bytes as the record has, at the next place of a pre-written file, and one
// fdatasync. The two take turns, so that both see the same disk; ns/op is the
// mean of Save, and the metrics are medians, which a neighbour's writes disturb
// less. The bare loop goes through the page cache, whatever Save does (io). The
// directory is $RAFTBENCH_DIR, or one under the system's temporary directory; mind
// that it is on the disk that is meant.
//
// Both write the same number of bytes at the same offsets: each write begins in
// the page in which the one before ended, so that page goes to the disk twice
// with either. Which of the two goes first changes from round to round.
//
//	go test -run - -bench Floor -benchtime 5000x ./backends/raw
func BenchmarkFloor(b *testing.B) {
	for _, w := range []way{{"auto", "auto"}, {"direct", "fdatasync"}, {"direct", "dsync"}, {"buffered", "fdatasync"}, {"buffered", "dsync"}} {
		for _, n := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("io=%s,sync=%s/entries=%d", w.io, w.sync, n), func(b *testing.B) { benchmarkFloor(b, w, n) })
		}
	}
}

func benchmarkFloor(b *testing.B, w way, n int) {
	dir, err := os.MkdirTemp(os.Getenv("RAFTBENCH_DIR"), "raw")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const segment = 16 << 20
	st, _, err := open(backends.Options{Dir: dir, Params: map[string]string{"io": w.io, "sync": w.sync}})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	s := st.(*storage)
	if chosen := s.Chosen(); chosen != nil {
		b.Logf("chose %v", chosen) // the figure is that of this way
	}

	ents := benchEntries(n)
	size, err := (&record{index: 1, ents: ents}).encodedSize()
	if err != nil {
		b.Fatal(err)
	}
	bare := newBareFile(b, filepath.Join(dir, "bare"), segment, size)
	hs := &raftpb.HardState{Term: proto.Uint64(1), Vote: proto.Uint64(1), Commit: proto.Uint64(0)}
	index := uint64(1)
	save := func() time.Duration {
		for _, e := range ents {
			*e.Index = index
			index++
		}
		start := time.Now()
		if err := s.Save(hs, ents); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	// A log that is released now and then never waits for new blocks.
	release := func() {
		snap := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(index - 1), Term: proto.Uint64(1)}}
		if err := s.SaveSnap(snap); err != nil {
			b.Fatal(err)
		}
		if err := s.Release(snap); err != nil {
			b.Fatal(err)
		}
	}
	for range 3 * segment / size {
		save()
		if len(s.segs) > 1 {
			release()
		}
	}
	var saves, writes []time.Duration
	var sum time.Duration
	for n := 0; b.Loop(); n++ {
		if n%2 == 1 {
			writes = append(writes, bare.write(b))
		}
		took := save()
		saves, sum = append(saves, took), sum+took
		if len(s.segs) > 1 {
			release()
		}
		if n%2 == 0 {
			writes = append(writes, bare.write(b))
		}
	}
	slices.Sort(saves)
	slices.Sort(writes)
	save50, bare50 := saves[len(saves)/2], writes[len(writes)/2]
	b.ReportMetric(float64(sum)/float64(len(saves)), "ns/op")
	b.ReportMetric(float64(save50), "p50-ns/op")
	b.ReportMetric(float64(bare50), "bare-p50-ns/op")
	b.ReportMetric(float64(save50)/float64(bare50), "×bare")
}

func benchEntries(n int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		data := make([]byte, 1024)
		for j := range data {
			data[j] = byte(i * j)
		}
		ents[i] = &raftpb.Entry{Term: proto.Uint64(1), Index: proto.Uint64(uint64(i + 1)), Data: data}
	}
	return ents
}

// bareFile is the device floor: a pre-written file and nothing else.
type bareFile struct {
	f    *os.File
	off  int64
	size int64
	buf  []byte
}

func newBareFile(b *testing.B, name string, size, record int64) *bareFile {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	for off := int64(0); off < size; off += fillChunk {
		if _, err := f.WriteAt(zeros[:], off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, record)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	return &bareFile{f: f, size: size, buf: buf}
}

func (f *bareFile) write(b *testing.B) time.Duration {
	if f.off+int64(len(f.buf)) > f.size {
		f.off = 0
	}
	start := time.Now()
	if _, err := f.f.WriteAt(f.buf, f.off); err != nil {
		b.Fatal(err)
	}
	if err := fdatasync(f.f); err != nil {
		b.Fatal(err)
	}
	f.off += int64(len(f.buf))
	return time.Since(start)
}

// BenchmarkEncode is what Save costs beside the system calls.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			ents := benchEntries(n)
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				r := record{index: 1, ents: ents}
				if _, err := r.encodedSize(); err != nil {
					b.Fatal(err)
				}
				buf = appendRecord(buf[:0], &r, 1, headerSize)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

// BenchmarkOpen is a restart with 64 MiB of log in the page cache.
func BenchmarkOpen(b *testing.B) {
	dir, err := os.MkdirTemp(os.Getenv("RAFTBENCH_DIR"), "raw")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	opts := backends.Options{Dir: dir, Params: map[string]string{"sync": "fdatasync"}}
	s, _, err := open(opts)
	if err != nil {
		b.Fatal(err)
	}
	ents := benchEntries(64)
	saved := int64(0)
	for saved < 64<<20 {
		if err := s.Save(hs(1, 1, 0), ents); err != nil {
			b.Fatal(err)
		}
		for _, e := range ents {
			*e.Index += uint64(len(ents))
			saved += int64(len(e.Data))
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(saved)
	b.ReportAllocs()
	for b.Loop() {
		s, st, err := open(opts)
		if err != nil {
			b.Fatal(err)
		}
		if int64(len(st.Entries))*1024 != saved {
			b.Fatalf("%d entries, want %d", len(st.Entries), saved/1024)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
