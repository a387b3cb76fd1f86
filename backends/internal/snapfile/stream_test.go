package snapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/raftbench/raftbench/backends"
)

func random(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	return b
}

// A streamed file is byte for byte the one that Save writes, and streams back.
func TestStreamIsSave(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, copyBytes - 1, copyBytes, copyBytes + 1, 3*copyBytes + 17, earlyBytes + copyBytes + 5} {
		want := snapshot(3, 20, random(size))
		dir := t.TempDir()
		staged, err := Stage(dir, want.Metadata, int64(size), iotest.HalfReader(bytes.NewReader(want.Data)))
		if err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir, 1)
		if files, _ := filepath.Glob(filepath.Join(dir, "*.snap")); len(files) > 0 {
			t.Fatalf("staged, and published already: %v", files)
		}
		if err := staged.Publish(); err != nil {
			t.Fatal(err)
		}
		wantLoad(t, dir, want)
		got, err := os.ReadFile(filepath.Join(dir, name(3, 20)))
		if err != nil || !bytes.Equal(got, encode(t, want)) {
			t.Fatalf("%d bytes streamed make another file than saved (%v)", size, err)
		}
		data, n, err := Open(dir, want.Metadata)
		if err != nil || n != int64(size) {
			t.Fatalf("Open: %d bytes, %v; want %d", n, err, size)
		}
		if size < 1000 { // it reads in many ways
			err = iotest.TestReader(data, want.Data)
		} else if got, readErr := io.ReadAll(data); !bytes.Equal(got, want.Data) {
			err = fmt.Errorf("%d bytes, %v", len(got), readErr)
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if err := data.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func wantFiles(t *testing.T, dir string, n int) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != n {
		t.Fatalf("%d files (%v), want %d: %v", len(files), err, n, files)
	}
}

// A stream that fails or has another length leaves nothing, and the earlier
// snapshot as it was.
func TestBrokenStream(t *testing.T) {
	dir := t.TempDir()
	earlier := snapshot(1, 10, []byte("earlier"))
	mustSave(t, dir, earlier)
	broken := errors.New("the peer went away")
	for _, c := range []struct {
		what string
		size int64
		data io.Reader
		want error
	}{
		{"short", 1000, bytes.NewReader(random(999)), io.ErrUnexpectedEOF},
		{"long", 1000, iotest.OneByteReader(bytes.NewReader(random(1001))), errTooLong},
		{"long, in one piece", 1000, bytes.NewReader(random(1001)), errTooLong},
		{"failing", 1000, io.MultiReader(bytes.NewReader(random(500)), iotest.ErrReader(broken)), broken},
		{"failing at its end", 1000, io.MultiReader(bytes.NewReader(random(1000)), iotest.ErrReader(broken)), broken},
	} {
		if _, err := Stage(dir, snapshot(2, 20, nil).Metadata, c.size, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
		wantFiles(t, dir, 1)
		wantLoad(t, dir, earlier)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	staged, err := Stage(dir, snapshot(1, 1, nil).Metadata, 3, bytes.NewReader([]byte("abc")))
	if err != nil {
		t.Fatal(err)
	}
	if err := staged.Discard(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, 0)
}

// No byte of a damaged file can be taken for a whole snapshot.
func TestOpenFindsDamage(t *testing.T) {
	dir := t.TempDir()
	snap := snapshot(3, 20, []byte("some data of the snapshot"))
	mustSave(t, dir, snap)
	path := filepath.Join(dir, name(3, 20))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		data, size, err := Open(dir, snap.Metadata)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(data)
			if err == nil && int64(len(got)) == size && bytes.Equal(got, snap.Data) {
				err = errors.New("nothing was found")
			}
			data.Close()
		}
		var damage *backends.DamageError
		if !errors.As(err, &damage) || damage.File != path {
			t.Fatalf("%s: got %v, want a DamageError for %s", what, err, path)
		}
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		check("one bit flipped", flipped)
		check("cut short", whole[:i])
	}
	check("one byte too many", append(bytes.Clone(whole), 0))
}

// What is being read outlives its release, and a snapshot without Data is empty.
func TestOpenOutlivesRelease(t *testing.T) {
	dir := t.TempDir()
	old := snapshot(1, 10, random(3*copyBytes))
	mustSave(t, dir, old)
	data, _, err := Open(dir, old.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	next := snapshot(1, 20, nil)
	mustSave(t, dir, next)
	if err := Release(dir, 20); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(data); err != nil || !bytes.Equal(got, old.Data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	empty, size, err := Open(dir, next.Metadata)
	if err != nil || size != 0 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	defer empty.Close()
	if got, err := io.ReadAll(empty); err != nil || len(got) > 0 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	wantLoad(t, dir, next)
}

// BenchmarkStage is a snapshot of 256 MiB that is written and synced, in turns with
// a plain copy of as many bytes. What counts is the ratio, of all rounds together.
func BenchmarkStage(b *testing.B) {
	const size = 256 << 20
	data := random(size)
	dir := b.TempDir()
	var staged, copied time.Duration
	b.SetBytes(size)
	for b.Loop() {
		start := time.Now()
		s, err := Stage(dir, snapshot(1, 1, nil).Metadata, size, struct{ io.Reader }{bytes.NewReader(data)})
		if err != nil {
			b.Fatal(err)
		}
		staged += time.Since(start)
		b.StopTimer()
		if err := s.Discard(); err != nil {
			b.Fatal(err)
		}
		copied += plainCopy(b, filepath.Join(dir, "copy"), data)
		b.StartTimer()
	}
	b.ReportMetric(staged.Seconds()/copied.Seconds(), "×copy")
}

// plainCopy writes and syncs a file, and removes it, which is not in the time.
func plainCopy(b *testing.B, path string, data []byte) time.Duration {
	b.Helper()
	start := time.Now()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, copyBytes))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := os.Remove(path); err != nil {
		b.Fatal(err)
	}
	return took
}
