package reports

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteThenRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	want := sample(t, defaultSample())
	if err := Write(dir, want); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ResultFile, BenchFile, RunsFile, ReportFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != want.ID || len(got.Runs) != len(want.Runs) || got.Runs[3].Response != want.Runs[3].Response {
		t.Error("what was read is not what was written")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("temporary files are left: %v, %v", entries, err)
	}
}

func TestReadErrors(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"newer", `{"schema": "raftbench/v2", "runs": "changed"}`, "newer raftbench"},
		{"other", `{"schema": "k6/v1"}`, `schema is "k6/v1"`},
		{"none", `{"runs": []}`, "no schema version"},
		{"null", `null`, "no schema version"},
		{"list", `[]`, "array"},
		{"text", `hello`, "invalid character"},
		{"empty", ``, "unexpected end"},
		{"huge number", `{"schema": "raftbench/v1", "runs": [{"ops": 1e400}]}`, "1e400"},
		{"duration as text", `{"schema": "raftbench/v1", "runs": [{"elapsed_ns": "5s"}]}`, "elapsed_ns"},
		{"cut gzip", "\x1f\x8b\x08", "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.json")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q: want one that names the file and %q", err, c.want)
			}
		})
	}
	if _, err := Read(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no result.json") {
		t.Errorf("an empty directory: %v", err)
	}
}
