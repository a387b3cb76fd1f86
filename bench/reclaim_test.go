package bench

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReclaim takes away what a killed run left, and nothing of anybody else's.
func TestReclaim(t *testing.T) {
	parent := t.TempDir()
	lay := func(name string, files ...string) string {
		dir := filepath.Join(parent, name)
		for _, f := range files {
			path := filepath.Join(dir, f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	names := func(dir string) (out []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	for name, tc := range map[string]struct {
		files []string
		left  int // files; 0: the directory is gone
	}{
		"raftbench-data-1": {[]string{marker, "run-001-raw/node-1/x", ".raftbench-disk-7"}, 0},
		"raftbench-data-2": {[]string{marker, "run-001-raw/x", "thesis.txt"}, 2},
		"raftbench-data-3": {[]string{"run-001-raw/x"}, 1},
		"named":            {[]string{marker, "run-001-raw/x"}, 1},
	} {
		dir := lay(name, tc.files...)
		if err := Reclaim(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := names(dir); len(got) != tc.left {
			t.Errorf("%s: left %v", name, got)
		}
	}
	busy := lay("raftbench-data-4", "x")
	if err := os.Remove(filepath.Join(busy, "x")); err != nil {
		t.Fatal(err)
	}
	ws, err := OpenWorkspace(busy, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ws.Make("run-001-raw"); err != nil {
		t.Fatal(err)
	}
	if err := Reclaim(busy); err != nil || len(names(busy)) != 2 {
		t.Errorf("in use: %v, left %v", err, names(busy))
	}
	if err := errors.Join(ws.Close(), Reclaim(""), Reclaim(filepath.Join(parent, "gone"))); err != nil {
		t.Error(err)
	}
}
