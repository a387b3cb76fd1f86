// Package trace reads the write-ahead log of a real etcd member, so that its
// entry sizes and batch shapes can be replayed against every backend.
//
// It is apart from package bench because it needs etcd's own reader of the log
// and what that depends on.
//
// # What is taken
//
// Every record of the log is read, from the first segment that is still there, and
// its checksum compared. Of the entries, those that raft replicates for clients
// are taken (type normal, with data), with the length of their data: that is what
// a proposal hands to raft, a marshalled etcd request. Changes of membership and
// the empty entries of new leaders are left out. An entry that a later leader
// replaced was written all the same, and counts.
//
// A Save of etcd writes its entries and then, if it changed, the hard state; it
// leaves no other mark. A batch is therefore what stands between two records of
// another kind: one Save, or several that follow each other without a change of
// the hard state. On a member that is under load, the commit index changes with
// nearly every Save.
package trace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/bench/load"
)

// ErrNoWAL says that a directory holds no segment of a write-ahead log.
var ErrNoWAL = errors.New("no *.wal file of an etcd member")

// Read reads the segments in dir, which may also be the data directory of a
// member, above them (dir/member/wal). Nothing is locked or changed. The end of
// the last segment may be torn, as in the log of a member that is running.
//
// Errors wrap [ErrNoWAL], or name the file and what is wrong with it.
func Read(dir string) (*load.Trace, error) {
	paths, err := segments(dir)
	if err != nil {
		return nil, err
	}
	r := reader{trace: &load.Trace{}}
	for i, path := range paths {
		if err := r.segment(path, i == len(paths)-1); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	r.endBatch()
	if len(r.trace.Sizes) == 0 {
		return nil, fmt.Errorf("the log in %s holds no entry with data", filepath.Dir(paths[0]))
	}
	return r.trace, nil
}

// segments lists the files of the log in order: their names are their number and
// first index in hexadecimal.
func segments(dir string) ([]string, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("read a log: %w", err)
	}
	for _, below := range []string{"", "wal", filepath.Join("member", "wal")} {
		paths, err := filepath.Glob(filepath.Join(escape(dir), below, "*.wal"))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		if len(paths) > 0 {
			slices.Sort(paths)
			return paths, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", dir, ErrNoWAL)
}

// escape quotes what filepath.Glob would take for a pattern.
func escape(dir string) string {
	var out []rune
	for _, r := range dir {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}

// reader gathers entries.
type reader struct {
	trace *load.Trace
	batch int    // entries since the last record of another kind
	crc   uint32 // at the end of the segment before
	begun bool   // there is one
}

// segment reads one file.
func (r *reader) segment(path string, last bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d := wal.NewDecoder(fileutil.NewFileReader(f))
	rec := &walpb.Record{}
	for n := 0; ; n++ {
		at := d.LastOffset()
		err := d.Decode(rec)
		if errors.Is(err, io.EOF) || last && errors.Is(err, io.ErrUnexpectedEOF) {
			r.crc, r.begun = d.LastCRC(), true
			return nil
		}
		if err == nil {
			err = r.record(rec, d, n)
		}
		if err != nil {
			return fmt.Errorf("offset %d: %w", at, err)
		}
	}
}

// record takes in the nth record of a segment. The first one repeats the checksum
// at the end of the segment before.
func (r *reader) record(rec *walpb.Record, d wal.Decoder, n int) error {
	if n == 0 && rec.GetType() != wal.CrcType {
		return errors.New("the segment does not begin with a checksum")
	}
	switch rec.GetType() {
	case wal.CrcType:
		if n == 0 && r.begun && rec.GetCrc() != r.crc || n > 0 && rec.GetCrc() != d.LastCRC() {
			return wal.ErrCRCMismatch
		}
		d.UpdateCRC(rec.GetCrc())
	case wal.EntryType:
		var e raftpb.Entry
		if err := proto.Unmarshal(rec.GetData(), &e); err != nil {
			return fmt.Errorf("entry: %w", err)
		}
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			r.trace.Sizes = append(r.trace.Sizes, len(e.GetData()))
			r.batch++
		}
	case wal.StateType, wal.SnapshotType:
		r.endBatch()
	case wal.MetadataType:
	default:
		return fmt.Errorf("record of unknown type %d", rec.GetType())
	}
	return nil
}

func (r *reader) endBatch() {
	if r.batch > 0 {
		r.trace.Batches = append(r.trace.Batches, r.batch)
		r.batch = 0
	}
}
