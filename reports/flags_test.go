package reports

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// setFlag finds the names of flags in the sources that set them.
var setFlag = regexp.MustCompile(`(?:[Ff]lags, |flagAll\(\w+, )"([a-z_]+)"`)

// TestFlagsAreExplained reads the sources of bench: every flag that they set has
// an entry in the registry, and every entry says what to do.
func TestFlagsAreExplained(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join("..", "bench", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range setFlag.FindAllSubmatch(data, -1) {
			set[string(m[1])] = true
		}
	}
	if len(set) < 5 {
		t.Fatalf("only %d flags were found in bench; is this test still reading the right sources?", len(set))
	}
	known := map[string]bool{}
	for _, f := range Flags {
		if known[f.Name] {
			t.Errorf("%s stands twice", f.Name)
		}
		known[f.Name] = true
		if f.Title == "" || f.Meaning == "" || f.Action == "" {
			t.Errorf("%s is not explained: %+v", f.Name, f)
		}
	}
	for name := range set {
		if !known[name] {
			t.Errorf("bench sets %q, which the registry does not explain", name)
		}
	}
}

func TestUnknownFlag(t *testing.T) {
	f := FlagByName("phase_of_the_moon\x1b[2J")
	if f.Severity != Warns || !strings.HasPrefix(f.Title, "phase_of_the_moon") || strings.Contains(f.Title+f.Meaning, "\x1b") {
		t.Errorf("%+v", f)
	}
}

// TestNothingCommitted: of an engine that stood in most of its runs nothing can be said.
func TestNothingCommitted(t *testing.T) {
	for idle, want := range map[int]Validity{0: Valid, 4: Doubtful, 6: Invalid, 10: Invalid} {
		r := plain(10, map[string]float64{"bbolt": 9000, "pebble": 9300}, "bbolt", "pebble")
		for i := range r.Runs {
			if run := &r.Runs[i]; run.Backend == "bbolt" && run.Block <= idle {
				run.Ops, run.Throughput, run.Response, run.Flags = 0, 0, result.Latency{}, []string{"nothing_committed"}
			}
		}
		if got := Verdict(r).Validity; got != want {
			t.Errorf("%d of 10 runs stood: %v, want %v", idle, got, want)
		}
	}
}
