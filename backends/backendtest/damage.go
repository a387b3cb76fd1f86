package backendtest

import (
	"bytes"
	"fmt"
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

// undamaged fills and closes a store and returns its image.
func (e *env) undamaged() *image {
	e.Helper()
	s := e.newStore()
	fillForDamage(s.save, s.saveSnap)
	s.release(s.o.snapshot())
	s.check("before the damage")
	s.close()
	return e.imageOf(s.dir)
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
		for _, at := range pristine.find(p.payload) {
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
	file := e.largest(pristine)
	end := file.extents[len(file.extents)-1].end
	var damaged []damage
	for _, at := range []int64{end - 1, end * 3 / 4, end / 2, end / 2 &^ 4095, end / 4, 1, 0} {
		damaged = append(damaged, damage{file: file.rel, offset: at, cut: true, what: "cut"})
	}
	outcomes := e.probe(pristine, damaged, true)
	e.Logf("%s cut at %d places: %v", file.rel, len(damaged), outcomes)
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
func (e *env) probe(pristine *image, damaged []damage, earlierStateIsFine bool) map[string]int {
	e.Helper()
	root := e.TempDir()
	spec := &probeSpec{}
	for i, d := range damaged {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := pristine.writeTo(dir); err != nil {
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
			case answer == probeError && !namesFile(detail, spec.Dirs[i], e.b.Name):
				e.Fatalf("%s: Open returned %q; want an error that names the file or its directory", d, detail)
			case answer == probeEarlier && !earlierStateIsFine, answer == probeWrong:
				e.Fatalf("%s: Open returned %s (%s); want an error, or the state that was saved", d, answer, detail)
			}
		}
	}
	return outcomes
}

// namesFile: the message has the path of the directory, or the name of a file
// in it; the name of the backend, which may look like one, does not count.
func namesFile(message, dir, backend string) bool {
	if strings.Contains(message, dir) {
		return true
	}
	message = strings.ReplaceAll(message, backend, "")
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

// randomFlips are places in the used part of the largest file that are not at
// the end of the log.
func (e *env) randomFlips(img *image) []damage {
	file := e.largest(img)
	end := file.extents[len(file.extents)-1].end
	for _, p := range img.find(payload(damageEntries-damageBatch+1, 1, damageValueBytes)) {
		if p.file == file.rel {
			end = min(end, p.offset-256)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var out []damage
	for tries := 0; len(out) < e.limits.flips && tries < 100*e.limits.flips; tries++ {
		x := file.extents[rng.IntN(len(file.extents))]
		if at := x.start + rng.Int64N(x.end-x.start); at < end {
			out = append(out, damage{file: file.rel, offset: at, bit: 1 << rng.IntN(8), what: "one bit flipped at random"})
		}
	}
	return out
}

// image is a directory in memory, without the zeros that preallocated files are
// made of.
type image struct {
	dirs  []string
	files []imageFile
}

type imageFile struct {
	rel     string
	mode    fs.FileMode
	size    int64
	extents []extent
	used    [][]byte // the bytes of each extent
}

func (e *env) imageOf(dir string) *image {
	e.Helper()
	img := &image{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			img.dirs = append(img.dirs, rel)
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f := imageFile{rel: rel, mode: info.Mode().Perm(), size: int64(len(content)), extents: extentsOf(content)}
		for _, x := range f.extents {
			f.used = append(f.used, bytes.Clone(content[x.start:x.end]))
		}
		img.files = append(img.files, f)
		return nil
	})
	if err != nil {
		e.tb.Fatalf("read the store's files: %v", err)
	}
	return img
}

// writeTo makes a copy with holes where the image has zeros.
func (img *image) writeTo(dir string) error {
	for _, rel := range img.dirs {
		if err := os.MkdirAll(filepath.Join(dir, rel), 0o700); err != nil {
			return err
		}
	}
	for _, f := range img.files {
		if err := f.writeTo(dir); err != nil {
			return err
		}
	}
	return nil
}

func (f *imageFile) writeTo(dir string) error {
	out, err := os.OpenFile(filepath.Join(dir, f.rel), os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	defer out.Close()
	for i, x := range f.extents {
		if _, err := out.WriteAt(f.used[i], x.start); err != nil {
			return err
		}
	}
	return out.Truncate(f.size)
}

// find looks for the payload; an engine that compresses or encodes hides it.
func (img *image) find(payload []byte) []place {
	var found []place
	for _, f := range img.files {
		for i, b := range f.used {
			// Not all of it: an engine may cut what is long into pieces.
			if at := bytes.Index(b, payload[:min(len(payload), 256)]); at >= 0 {
				found = append(found, place{f.rel, f.extents[i].start + int64(at)})
				break
			}
		}
	}
	return found
}

// largest is the file with the most bytes in use.
func (e *env) largest(img *image) *imageFile {
	e.Helper()
	var largest *imageFile
	var most int
	for i, f := range img.files {
		used := 0
		for _, b := range f.used {
			used += len(b)
		}
		if used > most {
			most, largest = used, &img.files[i]
		}
	}
	if largest == nil {
		e.Fatalf("nothing is stored after Close; want what was saved")
	}
	return largest
}

// extent is a part of a file that is not zero.
type extent struct{ start, end int64 }

const extentBytes = 4096

var zeros [extentBytes]byte

func extentsOf(content []byte) []extent {
	var out []extent
	for start := 0; start < len(content); start += extentBytes {
		end := min(start+extentBytes, len(content))
		if bytes.Equal(content[start:end], zeros[:end-start]) {
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
