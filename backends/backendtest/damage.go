package backendtest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// The store that is damaged: entries, saved one batch at a time so that most of
// them cannot belong to an interrupted last write, and a snapshot with Data.
const (
	damageBatches, damageBatch = 60, 3
	damageEntries              = damageBatches * damageBatch
	damageSnapIndex            = 60
	damageCommit               = 150
	damageValueBytes           = 1500
	damageSnapBytes            = 100_000
)

// fillForDamage makes the store, or tells only the oracle where s.s is nil. It
// does what no later call undoes, so that every state in between is known from
// the index of its last entry.
func fillForDamage(save func(*raftpb.HardState, ...*raftpb.Entry), saveSnap func(*raftpb.Snapshot)) {
	for i := range uint64(damageBatches) {
		commit := min(i*damageBatch, damageCommit)
		save(hs(1, 1, commit), run(i*damageBatch+1, 1, damageBatch, damageValueBytes)...)
		if commit == damageSnapIndex {
			saveSnap(snap(damageSnapIndex, 1, damageSnapBytes))
		}
	}
}

func damageOracle() *oracle {
	o := newOracle()
	fillForDamage(func(st *raftpb.HardState, ents ...*raftpb.Entry) { o.save(st, ents) }, o.saveSnap)
	return o
}

// undamaged fills and closes a store and returns its directory.
func (e *env) undamaged() string {
	e.Helper()
	s := e.newStore()
	fillForDamage(s.save, s.saveSnap)
	s.release(s.o.snapshot())
	s.check("before the damage")
	s.close()
	return s.dir
}

// testFlippedBit flips one bit at a time in the directory of a closed store:
// inside and just before the payload of an entry in the middle of the log and of
// the snapshot, and at random places of the largest file. Open must return an
// error or, where the bit did not matter, the whole state.
//
// The end of the log is left alone. A log whose last record does not match its
// checksum is what a power cut leaves of a write that nobody was told of, and
// most formats cannot tell one from the other.
func testFlippedBit(e *env) {
	pristine := e.undamaged()
	var damaged []damage
	for _, p := range []struct {
		what    string
		payload []byte
	}{
		{"an entry in the middle of the log", payload((damageSnapIndex+damageEntries)/2, 1, damageValueBytes)},
		{"the snapshot", payload(damageSnapIndex, ^uint64(1), damageSnapBytes)},
	} {
		for _, at := range e.find(pristine, p.payload) {
			for _, delta := range []int64{int64(len(p.payload) / 2), 0, -1, -2, -4, -6, -8, -12, -16, -20, -24, -28, -32} {
				if at.offset+delta >= 0 {
					damaged = append(damaged, damage{file: at.file, offset: at.offset + delta, bit: 1 << (uint64(-delta) % 8),
						what: fmt.Sprintf("one bit flipped %+d bytes from the Data of %s", delta, p.what)})
				}
			}
		}
	}
	damaged = append(damaged, e.randomFlips(pristine)...)
	outcomes := e.probe(pristine, damaged, false)
	e.Logf("%d bits flipped, one at a time: %v", len(damaged), outcomes)
}

// testCutFile cuts the largest file of a closed store. The end of a file is
// where a log's torn writes are, and most formats keep no length elsewhere: a
// state that the store once had is taken for an answer here, though an error is
// a better one. Never a state that it did not have.
func testCutFile(e *env) {
	pristine := e.undamaged()
	file, extents := e.largest(pristine)
	end := extents[len(extents)-1].end
	var damaged []damage
	for _, at := range []int64{end - 1, end * 3 / 4, end / 2, end / 2 &^ 4095, end / 4, 1, 0} {
		damaged = append(damaged, damage{file: file, offset: at, cut: true, what: "cut"})
	}
	outcomes := e.probe(pristine, damaged, true)
	e.Logf("%s cut at %d places: %v", file, len(damaged), outcomes)
}

// damage is one change to one file.
type damage struct {
	what   string
	file   string // relative to the directory
	offset int64
	bit    byte
	cut    bool // at offset, instead of a bit
}

func (d damage) String() string { return fmt.Sprintf("%s (%s, offset %d)", d.what, d.file, d.offset) }

func (d damage) inflict(dir string) error {
	path := filepath.Join(dir, d.file)
	if d.cut {
		return os.Truncate(path, d.offset)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, d.offset); err != nil {
		return err
	}
	b[0] ^= d.bit
	_, err = f.WriteAt(b, d.offset)
	return err
}

// probe opens a damaged copy of a directory for each damage, in a child process
// because damage may take a process down, and returns how often which answer
// came.
func (e *env) probe(pristine string, damaged []damage, earlierStateIsFine bool) map[string]int {
	e.Helper()
	root := e.TempDir()
	spec := &probeSpec{}
	for i, d := range damaged {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := copySparse(dir, pristine); err != nil {
			e.tb.Fatalf("copy the store: %v", err)
		}
		if err := d.inflict(dir); err != nil {
			e.tb.Fatalf("%s: %v", d, err)
		}
		spec.Dirs = append(spec.Dirs, dir)
	}
	c := e.startChild(childSpec{Probe: spec})
	defer c.kill()
	outcomes := map[string]int{}
	for i, d := range damaged {
		for range 2 {
			line, ok, err := c.next(e.limits.patience)
			if err != nil {
				e.Fatalf("%s: Open hangs: %v; want an error", d, err)
			}
			if !ok {
				e.Fatalf("%s: Open took the process down; want an error\n%s", d, c.lastWords())
			}
			answer, detail, _ := strings.Cut(line, ": ")
			outcomes[answer]++
			switch {
			case answer == probeError && !namesFile(detail, spec.Dirs[i]):
				e.Fatalf("%s: Open returned %q; want an error that names the file or its directory", d, detail)
			case answer == probeEarlier && !earlierStateIsFine, answer == probeWrong:
				e.Fatalf("%s: Open returned %s (%s); want an error, or the state that was saved", d, answer, detail)
			}
		}
	}
	return outcomes
}

// namesFile: the message has the path of the directory, or the name of a file
// in it.
func namesFile(message, dir string) bool {
	if strings.Contains(message, dir) {
		return true
	}
	found := false
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		found = found || err == nil && path != dir && strings.Contains(message, d.Name())
		return nil
	})
	return found
}

// probeSpec tells a child to open directories, each twice: what the first Open
// refuses, the second must not take.
type probeSpec struct{ Dirs []string }

// What a child says of an Open.
const (
	probeError   = "an error"
	probeSame    = "the whole state"
	probeEarlier = "an earlier state"
	probeWrong   = "a state that never was"
)

func (p *probeSpec) do(b backends.Backend, r *reporter) {
	o := damageOracle()
	for _, dir := range p.Dirs {
		for range 2 {
			answer, detail := probeOpen(b, dir, o)
			r.say("%s: %s", answer, detail)
		}
	}
}

func probeOpen(b backends.Backend, dir string, o *oracle) (answer, detail string) {
	storage, state, err := b.Open(backends.Options{Dir: dir})
	if err != nil {
		return probeError, err.Error()
	}
	defer storage.Close()
	detail = differs(state, o.state())
	if detail == "" {
		return probeSame, ""
	}
	if err := restartable(state); err != nil {
		return probeWrong, fmt.Sprintf("%s, and a raft node cannot start from it: %v", detail, err)
	}
	if state.Snapshot != nil {
		if d := snapshotDiffers(state.Snapshot, snap(damageSnapIndex, 1, damageSnapBytes)); d != "" {
			return probeWrong, d
		}
	}
	for _, e := range state.Entries {
		if d := entryDiffers(e, entry(e.GetIndex(), 1, damageValueBytes)); d != "" {
			return probeWrong, d
		}
	}
	return probeEarlier, detail
}

// place is somewhere in a file.
type place struct {
	file   string
	offset int64
}

// find looks for the payload in the files under dir; an engine that compresses
// or encodes hides it.
func (e *env) find(dir string, payload []byte) []place {
	e.Helper()
	var found []place
	e.eachFile(dir, func(rel string, content []byte) {
		// The first KiB will do: an engine may cut what is longer into pieces.
		if i := bytes.Index(content, payload[:min(len(payload), 256)]); i >= 0 {
			found = append(found, place{rel, int64(i)})
		}
	})
	return found
}

// randomFlips are places in the used part of the largest file that are not at
// the end of the log.
func (e *env) randomFlips(dir string) []damage {
	file, extents := e.largest(dir)
	tail := payload(damageEntries-damageBatch+1, 1, damageValueBytes)
	end := extents[len(extents)-1].end
	for _, p := range e.find(dir, tail) {
		if p.file == file {
			end = min(end, p.offset-256)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var out []damage
	for tries := 0; len(out) < e.limits.flips && tries < 100*e.limits.flips; tries++ {
		x := extents[rng.IntN(len(extents))]
		if at := x.start + rng.Int64N(x.end-x.start); at < end {
			out = append(out, damage{file: file, offset: at, bit: 1 << rng.IntN(8), what: "one bit flipped at random"})
		}
	}
	return out
}

// extent is a part of a file that is not zero.
type extent struct{ start, end int64 }

const extentBytes = 512

func extentsOf(content []byte) []extent {
	var out []extent
	for start := 0; start < len(content); start += extentBytes {
		end := min(start+extentBytes, len(content))
		if len(bytes.Trim(content[start:end], "\x00")) == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].end == int64(start) {
			out[n-1].end = int64(end)
		} else {
			out = append(out, extent{int64(start), int64(end)})
		}
	}
	return out
}

// largest is the file with the most bytes in use.
func (e *env) largest(dir string) (file string, extents []extent) {
	e.Helper()
	var most int64
	e.eachFile(dir, func(rel string, content []byte) {
		var used int64
		found := extentsOf(content)
		for _, x := range found {
			used += x.end - x.start
		}
		if used > most {
			most, file, extents = used, rel, found
		}
	})
	if most == 0 {
		e.Fatalf("nothing is stored in %s after Close; want what was saved", dir)
	}
	return file, extents
}

func (e *env) eachFile(dir string, f func(rel string, content []byte)) {
	e.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f(rel, content)
		return nil
	})
	if err != nil {
		e.tb.Fatalf("read the store's files: %v", err)
	}
}

// copySparse copies a tree; where a file holds zeros the copy holds holes, so
// that preallocated files cost nothing.
func copySparse(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dst, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(target, info.Mode().Perm()|0o700)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is neither a file nor a directory", path)
		}
		return copyFileSparse(target, path, info)
	})
}

func copyFileSparse(target, path string, info fs.FileInfo) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 64<<10)
	for offset := int64(0); ; {
		n, err := io.ReadFull(in, buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			if _, err := out.WriteAt(buf[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Truncate(offset)
		}
		if err != nil {
			return err
		}
	}
}
