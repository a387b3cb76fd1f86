package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// page gets an address; "" where nothing answers with 200.
func page(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// startServing starts a run that serves metrics and profiles, and returns where, by
// name of the flag, and what the command has said so far.
func startServing(t *testing.T) (cmd *exec.Cmd, urls map[string]string, stderr func() string) {
	t.Helper()
	cmd, _, _ = command(t, "run", "--backends", "raw", "--repeats", "1", "--duration", "60s", "--load", "closed:4",
		"--metrics", "127.0.0.1:0", "--pprof", ":0", "--out", "out")
	log, err := os.Create(filepath.Join(t.TempDir(), "stderr")) // a file can be read while it is written
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // fails where it has ended, as it should
	stderr = func() string {
		said, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
	address := regexp.MustCompile(`(metrics|pprof): (http://127\.0\.0\.1:\d+/\S+)`)
	urls = map[string]string{}
	until(t, "the addresses", func() bool {
		for _, m := range address.FindAllStringSubmatch(stderr(), -1) {
			urls[m[1]] = m[2]
		}
		return len(urls) == 2
	})
	return cmd, urls, stderr
}

// TestMetrics asks for the metrics during a run: etcd's names are there, and every
// metric that the dashboard shows.
func TestMetrics(t *testing.T) {
	cmd, urls, stderr := startServing(t)
	text := ""
	until(t, "metrics of the measured time", func() bool {
		text = page(t, urls["metrics"])
		return strings.Contains(text, `raftbench_run_phase{phase="measure"} 1`)
	})
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	exposed := map[string]bool{}
	for name, f := range families {
		exposed[name] = true
		if f.GetMetric()[0].GetHistogram() != nil || f.GetMetric()[0].GetSummary() != nil {
			exposed[name+"_bucket"], exposed[name+"_count"], exposed[name+"_sum"] = true, true, true
		}
	}
	for _, name := range []string{"etcd_disk_wal_fsync_duration_seconds", "etcd_server_proposals_committed_total",
		"etcd_server_proposals_applied_total", "etcd_server_proposals_pending", "etcd_server_proposals_failed_total",
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_leader_changes_seen_total",
		"etcd_server_heartbeat_send_failures_total", "etcd_network_peer_sent_bytes_total", "raftbench_response_seconds"} {
		if !exposed[name] {
			t.Errorf("%s is not served", name)
		}
	}
	saves := families["etcd_disk_wal_fsync_duration_seconds"].GetMetric()
	if len(saves) != 3 || saves[0].GetHistogram().GetSampleCount() == 0 || saves[0].GetHistogram().GetBucket()[0].GetUpperBound() > 20e-6 {
		t.Errorf("Saves of the nodes: %v", saves)
	}
	for _, expr := range dashboard(t) {
		for _, name := range metricNames(expr) {
			if !exposed[name] {
				t.Errorf("the dashboard asks for %s (in %s), which a run does not serve", name, expr)
			}
		}
	}
	if text := page(t, urls["pprof"]+"goroutine?debug=1"); !strings.Contains(text, "raftbench/node.(*Node).run") {
		t.Errorf("the goroutines are not those of a run:\n%s", text)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("exit code %d:\n%s", cmd.ProcessState.ExitCode(), stderr())
	}
	if page(t, urls["metrics"]) != "" {
		t.Error("the metrics outlive the command")
	}
}

// dashboard returns every PromQL expression of the dashboard.
func dashboard(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	var exprs []string
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
			if len(metricNames(target.Expr)) == 0 {
				t.Errorf("panel %q: no metric in %q", p.Title, target.Expr)
			}
		}
	}
	return exprs
}

var (
	promQuoted = regexp.MustCompile(`"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)`)
	promName   = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
)

// metricNames are the identifiers of a PromQL expression that are neither functions
// nor labels.
func metricNames(expr string) []string {
	var names []string
	for _, name := range promName.FindAllString(promQuoted.ReplaceAllString(expr, " "), -1) {
		if name = strings.TrimSpace(name); !strings.HasSuffix(name, "(") && name != "sum" && name != "max" {
			names = append(names, name)
		}
	}
	return names
}

func TestMetricNames(t *testing.T) {
	for expr, want := range map[string]string{
		`histogram_quantile(0.99, sum by (le, node) (rate(a_bucket{x="b c", y=~"d"}[5m])))`: "[a_bucket]",
		`a:b{c="d"} - on (e) f`:               "[a:b f]",
		`sum(rate(a[$__rate_interval])) / 2.`: "[a]",
	} {
		if got := fmt.Sprint(metricNames(expr)); got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}

// TestMetricsAddress: what cannot be listened on is told before anything is done.
func TestMetricsAddress(t *testing.T) {
	for addr, code := range map[string]int{"9464": exitUsage, ":http": exitUsage, ":99999": exitUsage, "192.0.2.1:9464": exitFailure} {
		if o := raftbench(t, quick("--metrics", addr)...); o.code != code || !strings.Contains(o.stderr, "--metrics "+addr) || left(t, o.dir) != "" {
			t.Errorf("--metrics %s: exit code %d, left %s:\n%s", addr, o.code, left(t, o.dir), o.stderr)
		}
	}
	for _, f := range []runFlags{{metrics: ":0", placement: "process"}, {pprof: ":0", placement: "in-process", hosts: "a:7400,b:7400,c:7400"}} {
		if _, err := f.observe(io.Discard); err == nil || exitCode(err) != exitUsage {
			t.Errorf("with several processes: %v", err)
		}
	}
}
