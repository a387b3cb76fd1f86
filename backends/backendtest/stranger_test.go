package backendtest

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the example engine into docs/contract.md")

const (
	module       = "github.com/raftbench/raftbench"
	exampleBegin = "<!-- example: backends/backendtest/testdata/journal/journal.go -->\n```go\n"
	exampleEnd   = "```\n<!-- end of example -->\n"
)

// TestStranger builds the engine of docs/contract.md in a module of its own,
// which sees only public packages, and proves it there.
func TestStranger(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/journal")); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	// The same versions, so that nothing has to be fetched.
	text := strings.Replace(string(mod), "module "+module, "module example.org/journal", 1) +
		"\nrequire " + module + " v0.0.0\nreplace " + module + " => " + root + "\n"
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"go.mod": []byte(text), "go.sum": sum} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-count=1", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test in a stranger's module: %v\n%s", err, out)
	}
}

// TestExampleInDocs: docs/contract.md shows the engine that TestStranger proves.
func TestExampleInDocs(t *testing.T) {
	code, err := os.ReadFile("testdata/journal/journal.go")
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../docs/contract.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(doc, []byte(exampleBegin))
	shown, after, ok2 := bytes.Cut(rest, []byte(exampleEnd))
	if !ok || !ok2 {
		t.Fatalf("%s has no example between its marks", path)
	}
	if bytes.Equal(shown, code) {
		return
	}
	if !*update {
		t.Fatalf("%s shows another engine than testdata/journal/journal.go; run go test -run ExampleInDocs -update", path)
	}
	out := bytes.Join([][]byte{before, []byte(exampleBegin), code, []byte(exampleEnd), after}, nil)
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
}
