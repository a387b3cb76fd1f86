package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// repoRoot is where README.md and docs are.
const repoRoot = "../.."

// shellWords splits a line as a shell would, as far as documentation goes: quotes,
// comments, and an end at the first operator. Variables stay as they stand.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	inWord := false
	flush := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			flush()
		case strings.ContainsRune("|;&<>", r), r == '#' && !inWord:
			flush()
			return words
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	flush()
	return words
}

// call is what stands before the arguments of a raftbench.
var call = regexp.MustCompile(`^(\$ )?(sudo )?(ip netns exec \S+ )?(\./|go run \./cmd/)?raftbench `)

// shellCommands are the arguments of each raftbench that a script calls.
func shellCommands(script string) [][]string {
	var out [][]string
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		if call := call.FindStringIndex(strings.TrimSpace(line)); call != nil {
			out = append(out, shellWords(strings.TrimSpace(line)[call[1]:]))
		}
	}
	return out
}

// codeBlocks are the indented and the fenced lines of a Markdown text.
func codeBlocks(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if fenced || strings.HasPrefix(line, "    ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// checkCommand reports what raftbench would say of arguments before it does
// anything: a command or a flag that is not there, or a value that it would not
// take.
func checkCommand(args []string) error {
	var out bytes.Buffer
	a := &app{stdin: &out, stdout: &out, stderr: &out}
	top := a.rootCommand()
	cmd, rest, err := top.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	if cmd.Name() != "run" || cmd.Flags().Changed("file") || cmd.Flags().Changed("resume") {
		return nil
	}
	return checkRun(rest)
}

// checkRun takes the values of the flags of `raftbench run` apart.
func checkRun(args []string) error {
	var f runFlags
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := cmd.Flags().Parse(args); err != nil {
		return err
	}
	if err := f.place(cmd.Flags()); err != nil {
		return err
	}
	spec, err := f.suite(cmd.Flags())
	if err != nil {
		return err
	}
	demands, err := parseThresholds(f.thresholds)
	if err != nil {
		return err
	}
	return spec.CheckDemands(demands)
}

// TestDocumentedCommands: what the documentation tells people to type exists.
func TestDocumentedCommands(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(repoRoot, "docs", "*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	found := 0
	for _, page := range append(pages, filepath.Join(repoRoot, "README.md"), filepath.Join(repoRoot, "CONTRIBUTING.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range shellCommands(codeBlocks(string(text))) {
			found++
			if err := checkCommand(args); err != nil {
				t.Errorf("%s: raftbench %s: %v", page, strings.Join(args, " "), err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found", found)
	}
}

// workflow is a GitHub Actions workflow, as far as it is looked at here.
type workflow struct {
	Jobs map[string]struct {
		Steps []struct {
			Name string
			Uses string
			Run  string
		}
	}
}

// TestWorkflow: the example for CI is a workflow, and its commands exist.
func TestWorkflow(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repoRoot, "docs", "ci", "raftbench.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(data, &w); err != nil {
		t.Fatal(err)
	}
	called := map[string]string{}
	for name, job := range w.Jobs {
		for _, step := range job.Steps {
			if (step.Uses == "") == (step.Run == "") {
				t.Errorf("%s, %q: want one of uses and run", name, step.Name)
			}
			for _, args := range shellCommands(step.Run) {
				called[args[0]] += " " + strings.Join(args, " ")
				if err := checkCommand(args); err != nil {
					t.Errorf("%s, %q: raftbench %s: %v", name, step.Name, strings.Join(args, " "), err)
				}
			}
		}
	}
	for command, flag := range map[string]string{"run": "--strict", "disk": "--dir", "report": "--markdown", "compare": "--tolerance"} {
		if !strings.Contains(called[command], flag) {
			t.Errorf("the workflow does not call raftbench %s %s: %v", command, flag, called)
		}
	}
	if !strings.Contains(called["run"], "--threshold") {
		t.Errorf("the workflow holds no threshold: %v", called)
	}
}

// TestCheckCommand: the checks above find what they are for.
func TestCheckCommand(t *testing.T) {
	for line, want := range map[string]string{
		"raftbench run --repeat 3":                              "unknown flag: --repeat",
		"raftbench run --load bursty:3":                         "closed:N",
		"raftbench run --threshold 'etcd-wal:speed<5ms'":        "unknown metric",
		"raftbench run --threshold 'rocksdb:save.p99<5ms'":      "not in this suite",
		"raftbench run --backends rocksdb | tee log":            "rocksdb",
		"raftbench compare a":                                   "two results",
		"raftbench measure":                                     "unknown command",
		"$ raftbench disk --json --dir \"/a b\" # why":          "",
		"sudo ip netns exec a raftbench disk --speed":           "unknown flag: --speed",
		"sudo raftbench run --backends raw \\\n--nodes 99":      "1 to 9",
		"go run ./cmd/raftbench run --file suite.yaml > o":      "",
		"raftbench run --threshold 'raw:save.p99<5ms' --strict": "",
	} {
		commands := shellCommands(line)
		if len(commands) != 1 {
			t.Errorf("%q: %d commands", line, len(commands))
			continue
		}
		if err := checkCommand(commands[0]); want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: error %v, want %q", line, err, want)
		}
	}
}

// container is a container of a Kubernetes object, as far as it is looked at here.
type container struct {
	Name, Image string
	Args        []string
}

// podTemplate is an object of deploy/kubernetes that makes pods.
type podTemplate struct {
	Spec struct {
		Template struct {
			Spec struct{ Containers []container }
		}
	}
}

// TestManifestCommands: the Kubernetes manifests call raftbench as it is. What else
// is in them, deploy/kubernetes/manifesttest checks.
func TestManifestCommands(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repoRoot, "deploy", "kubernetes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	called := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for object := range strings.SplitSeq(string(data), "\n---\n") {
			var pods podTemplate
			if err := yaml.Unmarshal([]byte(object), &pods); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for _, c := range pods.Spec.Template.Spec.Containers {
				if c.Image != "raftbench" {
					continue
				}
				called[c.Args[0]] = true
				if err := checkCommand(c.Args); err != nil {
					t.Errorf("%s: container %s: %v", file, c.Name, err)
				}
			}
		}
	}
	if !called["agent"] || !called["run"] {
		t.Errorf("the manifests call %v, want agent and run", called)
	}
}
