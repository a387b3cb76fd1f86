package badger

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
)

const crashDirEnv = "BADGER_TEST_CRASH_DIR"

// TestCrashChild saves and ends without a close, so that the write-ahead log
// stays.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDirEnv)
	if dir == "" {
		t.Skip("for TestDamagedLog")
	}
	s, _, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	for i := range uint64(20) {
		must(t, s.Save(hardState(i), entries(1+3*i, 3, 200)))
	}
	os.Exit(0)
}

// crashed is the write-ahead log of a process that ended while 60 entries were in
// it, without the zeros that badger makes room with.
func crashed(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs %v, %v; want one", logs, err)
	}
	b, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	return append(trimZeros(b), make([]byte, 100)...)
}

func trimZeros(b []byte) []byte {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return b[:n]
}

// records are the starts of the records of a log, and of the transactions.
func records(t testing.TB, b []byte) (starts, txns []int) {
	t.Helper()
	begins := true
	for at := logHeader; ; {
		r, ok := parseRecord(b[at:])
		if !ok {
			if len(txns) < 20 {
				t.Fatalf("%d transactions in the log, want at least 20", len(txns))
			}
			return starts, txns
		}
		starts = append(starts, at)
		if begins {
			txns = append(txns, at)
		}
		begins = r.end
		at += r.size
	}
}

// TestDamagedLog: a record that cannot be read is damage where transactions
// follow, and a torn write where none does.
func TestDamagedLog(t *testing.T) {
	b := crashed(t)
	starts, txns := records(t, b)
	must(t, verifyLog(b))
	last, lastButOne := txns[len(txns)-1], txns[len(txns)-2]
	for _, at := range starts {
		for _, bit := range []int{0, 25, 60} { // of the header, the key and the value
			bad := slices.Clone(b)
			bad[at+bit/8] ^= 1 << (bit % 8)
			err := verifyLog(bad)
			switch {
			case at >= last && err != nil:
				t.Errorf("bit %d of the record at %d, in the last transaction, changed: %v", bit, at, err)
			case at < lastButOne && err == nil:
				t.Errorf("bit %d of the record at %d, before other transactions, changed, and there is no error", bit, at)
			case at >= lastButOne && at < last && err == nil:
				t.Errorf("bit %d of the record at %d, in the last transaction but one, changed, and there is no error", bit, at)
			}
		}
	}
	// What a crash leaves of the last transaction: any part of it.
	for n := last; n <= len(b); n += 37 {
		torn := append(slices.Clone(b[:n]), make([]byte, len(b)-n)...)
		if err := verifyLog(torn); err != nil {
			t.Errorf("the last transaction torn after %d bytes: %v", n-last, err)
		}
		torn = slices.Clone(b)
		clear(torn[last:n])
		if err := verifyLog(torn); err != nil {
			t.Errorf("the first %d bytes of the last transaction missing: %v", n-last, err)
		}
	}
	if verifyLog(b[:logHeader-1]) == nil {
		t.Error("a log shorter than its header is taken")
	}
}

// TestDamagedLogOnOpen: Open says which file, where badger would open a shorter
// log.
func TestDamagedLogOnOpen(t *testing.T) {
	b := crashed(t)
	_, txns := records(t, b)
	for _, c := range []struct {
		name string
		at   int
		want string
	}{
		{"whole", 0, ""},
		{"damaged in the middle", txns[10] + 30, "00001.mem"},
	} {
		dir := t.TempDir()
		s, _, err := Backend.Open(backends.Options{Dir: dir})
		must(t, err)
		must(t, s.Close())
		file := append(slices.Clone(b), make([]byte, 64<<20-len(b))...)
		if c.at > 0 {
			file[c.at] ^= 1
		}
		must(t, os.WriteFile(filepath.Join(dir, "00001.mem"), file, 0o600))
		s, st, err := Backend.Open(backends.Options{Dir: dir})
		if c.want == "" {
			must(t, err)
			must(t, s.Close())
			if len(st.Entries) != 60 {
				t.Errorf("%s: %d entries, want 60", c.name, len(st.Entries))
			}
			continue
		}
		var damage *backends.DamageError
		if !errors.As(err, &damage) || filepath.Base(damage.File) != c.want {
			t.Errorf("%s: got %v, want damage of %s", c.name, err, c.want)
		}
	}
}

// TestDamagedTable changes, cuts and removes tables and the manifest: Open says
// so, where badger would end the process or leave a table out.
func TestDamagedTable(t *testing.T) {
	for _, compression := range []string{"none", "snappy", "zstd"} {
		dir := t.TempDir()
		s, _, err := Backend.Open(backends.Options{Dir: dir, Params: map[string]string{"compression": compression}})
		must(t, err)
		must(t, s.Save(hardState(0), entries(1, 200, 300)))
		must(t, s.Close())
		tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
		must(t, err)
		if len(tables) != 1 {
			t.Fatalf("%s: tables %v, want one", compression, tables)
		}
		whole, err := os.ReadFile(tables[0])
		must(t, err)
		try := func(what string, b []byte) {
			t.Helper()
			if b == nil {
				must(t, os.Remove(tables[0]))
			} else {
				must(t, os.WriteFile(tables[0], b, 0o600))
			}
			s, st, err := Backend.Open(backends.Options{Dir: dir})
			var damage *backends.DamageError
			switch {
			case err == nil && len(st.Entries) == 200: // the bit did not matter
				must(t, s.Close())
			case err == nil:
				t.Fatalf("%s: %s: Open returned %d entries", compression, what, len(st.Entries))
			case !errors.As(err, &damage) || !strings.Contains(damage.File, dir):
				t.Fatalf("%s: %s: got %v, want damage", compression, what, err)
			}
			must(t, os.WriteFile(tables[0], whole, 0o600))
		}
		for i := 0; i < len(whole); i += len(whole)/40 + 1 {
			bad := slices.Clone(whole)
			bad[i] ^= 1 << (i % 8)
			try(fmt.Sprintf("bit %d of byte %d changed", i%8, i), bad)
		}
		for i := 1; i < 40; i++ { // the footer
			bad := slices.Clone(whole)
			bad[len(bad)-i] ^= 0x80
			try(fmt.Sprintf("byte %d from the end changed", i), bad)
		}
		for _, n := range []int{0, 3, 4, 100, len(whole) / 2, len(whole) - 1} {
			try(fmt.Sprintf("cut to %d bytes", n), whole[:n])
		}
		try("removed", nil)
	}
}

func TestMissingManifest(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	must(t, s.Save(hardState(0), entries(1, 10, 10)))
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(dir, "MANIFEST")))
	for range 2 { // badger would delete the tables
		_, _, err = Backend.Open(backends.Options{Dir: dir})
		var damage *backends.DamageError
		if !errors.As(err, &damage) {
			t.Fatalf("got %v, want damage", err)
		}
	}
}

func FuzzVerifyLog(f *testing.F) {
	b := crashed(f)
	_, txns := records(f, b)
	f.Add(b[:txns[3]])
	f.Add(append(slices.Clone(b[:txns[1]]), b[txns[2]:txns[4]]...))
	f.Add(make([]byte, logHeader+30))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = verifyLog(b)
		if len(b) > logHeader {
			if r, ok := parseRecord(b[logHeader:]); ok && (r.size <= 0 || r.size > len(b)-logHeader) {
				t.Fatalf("a record of %d bytes in %d", r.size, len(b)-logHeader)
			}
		}
	})
}

func FuzzVerifyFooter(f *testing.F) {
	dir := f.TempDir()
	s, _, err := Backend.Open(backends.Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(s.Save(hardState(0), entries(1, 5, 30)), s.Close()); err != nil {
		f.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		f.Fatalf("tables %v, %v", tables, err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		f.Fatal(err)
	}
	if err := verifyFooter(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { _ = verifyFooter(b) })
}
