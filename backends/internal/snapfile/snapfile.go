// Package snapfile keeps raft snapshots as files, for engines that hold only a
// log.
//
// A snapshot is written to a temporary name, synced, renamed to
// <term>-<index>.snap, and its directory is synced: under that name a file is
// whole and durable, or it is damaged. A crash before the rename leaves a .tmp
// file, which the next Load removes.
//
//	offset  size  content
//	0       8     "RBSNAP1\n"
//	8       4     CRC-32C of everything after it, little endian
//	12      8     length of the body, little endian
//	20      n     raftpb.Snapshot, protobuf, its Data first
package snapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

const (
	magic      = "RBSNAP1\n"
	crcOffset  = len(magic)
	headerSize = crcOffset + 4 + 8
	suffix     = ".snap"
	tmpPattern = "*.snap.tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save stores snap in dir. When it returns, snap survives a power cut; an older
// snapshot is untouched. Calls may run at the same time as each other and as
// Release.
func Save(dir string, snap *raftpb.Snapshot) error {
	size := int64(len(snap.GetData()))
	if snap.GetData() == nil {
		size = noData
	}
	staged, err := stage(dir, snap.GetMetadata(), size, bytes.NewReader(snap.GetData()))
	if err != nil {
		return err
	}
	return staged.Publish()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load returns the snapshot with the highest index in dir, nil if there is none,
// and removes what a crash left half-written. It must not run at the same time
// as Save. Where the newest file cannot be read back the error is a
// *[backends.DamageError]: an older snapshot is no substitute, because the log
// between the two may have been released.
func Load(dir string) (*raftpb.Snapshot, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for snapshots: %w", err)
	}
	if err := clean(dir, files); err != nil {
		return nil, err
	}
	var newest string
	var newestIndex, newestTerm uint64
	for _, f := range files {
		term, index, ok := parseName(f.Name())
		if ok && (index > newestIndex || index == newestIndex && term > newestTerm) {
			newest, newestIndex, newestTerm = f.Name(), index, term
		}
	}
	if newest == "" {
		return nil, nil
	}
	return Read(dir, newestTerm, newestIndex)
}

// Clean removes what a crash left half-written. It must not run at the same time
// as Save or Stage.
func Clean(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for snapshots: %w", err)
	}
	return clean(dir, files)
}

func clean(dir string, files []os.DirEntry) error {
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), suffix+".tmp") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	return nil
}

// Read returns one snapshot, whose Data is in memory. A file that is not there, or
// cannot be read back, is a *[backends.DamageError].
func Read(dir string, term, index uint64) (*raftpb.Snapshot, error) {
	path := filepath.Join(dir, name(term, index))
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &backends.DamageError{File: path, Err: errors.New("the file is missing")}
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	snap, err := decode(b)
	if err == nil && (snap.GetMetadata().GetIndex() != index || snap.GetMetadata().GetTerm() != term) {
		err = fmt.Errorf("the file holds index %d, term %d", snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm())
	}
	if err != nil {
		return nil, &backends.DamageError{File: path, Err: err}
	}
	return snap, nil
}

// Release removes the snapshots in dir whose index is lower than index. A crash
// may bring them back, which does no harm.
func Release(dir string, index uint64) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for old snapshots: %w", err)
	}
	for _, f := range files {
		if _, i, ok := parseName(f.Name()); ok && i < index {
			// Another Release may have been faster.
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove an old snapshot: %w", err)
			}
		}
	}
	return nil
}

// Remove removes one snapshot, if it is there. A crash may bring it back.
func Remove(dir string, term, index uint64) error {
	if err := os.Remove(filepath.Join(dir, name(term, index))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old snapshot: %w", err)
	}
	return nil
}

// Keep removes all snapshots in dir but one, of which there may be none, and what a
// crash left half-written. It must not run at the same time as Save or Stage. A
// directory that is not there holds nothing.
func Keep(dir string, term, index uint64) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for old snapshots: %w", err)
	}
	for _, f := range files {
		if t, i, ok := parseName(f.Name()); ok && (t != term || i != index) {
			if err := Remove(dir, t, i); err != nil {
				return err
			}
		}
	}
	return clean(dir, files)
}

func name(term, index uint64) string {
	return fmt.Sprintf("%016x-%016x%s", term, index, suffix)
}

func parseName(s string) (term, index uint64, ok bool) {
	if n, err := fmt.Sscanf(s, "%016x-%016x"+suffix, &term, &index); n != 2 || err != nil {
		return 0, 0, false
	}
	return term, index, s == name(term, index)
}

// decode reads a whole file. The Data of the snapshot aliases b.
func decode(b []byte) (*raftpb.Snapshot, error) {
	if len(b) < headerSize || string(b[:crcOffset]) != magic {
		return nil, fmt.Errorf("not a snapshot file (%d bytes, or another format)", len(b))
	}
	if n := binary.LittleEndian.Uint64(b[crcOffset+4:]); n != uint64(len(b)-headerSize) {
		return nil, fmt.Errorf("the header says %d bytes, the file has %d", n, len(b)-headerSize)
	}
	if got, want := crc32.Checksum(b[crcOffset+4:], castagnoli), binary.LittleEndian.Uint32(b[crcOffset:]); got != want {
		return nil, fmt.Errorf("checksum is %08x, the header says %08x", got, want)
	}
	snap, err := decodeBody(b[headerSize:])
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if snap.GetMetadata().GetIndex() == 0 {
		return nil, errors.New("the snapshot has no index")
	}
	return snap, nil
}

// decodeBody is proto.Unmarshal without the copy of Data that it makes.
func decodeBody(b []byte) (*raftpb.Snapshot, error) {
	snap := &raftpb.Snapshot{}
	size, head := dataField(b)
	if size == noData {
		return snap, proto.Unmarshal(b, snap)
	}
	if size > int64(len(b)-head) {
		return nil, fmt.Errorf("%d bytes of data do not fit in %d", size, len(b)-head)
	}
	end := head + int(size)
	if err := proto.Unmarshal(b[end:], snap); err != nil {
		return nil, err
	}
	snap.Data = b[head:end:end]
	return snap, nil
}
