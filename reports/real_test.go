package reports

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// realResults reads results that raftbench has measured; testdata/real/README.md
// says how.
func realResults(t testing.TB, pattern string) []*result.Result {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "real", pattern))
	if err != nil {
		t.Fatal(err)
	}
	var out []*result.Result
	for _, path := range paths {
		r, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		t.Fatalf("no real result matches %s", pattern)
	}
	return out
}

// TestRealResults demands of what raftbench has measured that the schema accepts
// it, that it survives being written and read, and that it belongs to one machine
// and build, so that one page can show all of it.
func TestRealResults(t *testing.T) {
	t.Parallel()
	all := realResults(t, "*.json.gz")
	if groups := Merge(all); len(groups) != 1 {
		t.Errorf("%d environments", len(groups))
	}
	s := compileSchema(t)
	workloads := map[string]bool{}
	for _, r := range all {
		var b bytes.Buffer
		if err := JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, b.Bytes()); err != nil {
			t.Errorf("%s: %v", r.ID, err)
		}
		for i := range r.Runs {
			workloads[r.Runs[i].Workload] = true
			if r.Runs[i].Load.Share > 0 {
				workloads["curve"] = true
			}
			if r.Runs[i].Load.Step > 0 {
				workloads["search"] = true
			}
		}
	}
	for _, want := range []string{"propose", "curve", "search", "snapshot", "restart", "age", "trace"} {
		if !workloads[want] {
			t.Errorf("no real result of %s", want)
		}
	}
}
