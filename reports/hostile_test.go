package reports

import (
	"bytes"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// hostile is a result in which every text is an attack and figures are missing,
// absurd or not numbers.
func hostile(t testing.TB) *result.Result {
	t.Helper()
	r := fullSample(t, 6, 3)
	const attack = `<script>document.title="pwned"</script>"'` + "`" + `><img src=x onerror=alert(1)>{{.}}</style>]]>&amp;` + "\x1b[31m\x00\r\n\u202e|=1+1"
	nan, inf := math.NaN(), math.Inf(1)
	r.ID, r.Env.Hostname, r.Env.CPU, r.Env.Dir, r.Env.FileSystem, r.Env.Model = attack, attack, attack, attack, attack, attack
	r.Env.Modules = map[string]string{attack: attack}
	r.Env.Warnings = []string{attack}
	r.Env.CPUQuota = inf
	r.Command = []string{attack, "", "it's", "plain"}
	r.Notes = map[string]string{attack: attack}
	for i := range r.Runs {
		run := &r.Runs[i]
		switch i % 7 {
		case 0:
			run.Backend, run.Params, run.Flags = attack, map[string]string{attack: attack}, []string{attack, "not_steady"}
			run.Chosen = map[string]string{attack: attack}
			run.Settings = map[string]string{attack: attack}
		case 1:
			run.Throughput, run.SaveFloor, run.EntriesPerSave = nan, inf, &nan
		case 2:
			run.Throughput, run.Response.P99, run.Elapsed = 1e300, math.MaxInt64, -time.Second
		case 3:
			run.Response, run.Save, run.Stages, run.Snapshot, run.Verified, run.Series = result.Latency{}, result.Latency{}, nil, nil, nil, nil
		case 4:
			run.Error, run.Transport, run.Workload, run.Load.Kind, run.Durability = attack, attack, attack, attack, attack
		case 5:
			run.Response.Encoded, run.Save.Encoded = "AAAA", attack
			run.Series = []result.Point{{T: -5, Ops: -1, Buckets: make([]int64, 70)}, {T: math.MaxInt64, Ops: math.MaxInt64, Buckets: []int64{math.MaxInt64, -1}}}
			run.Events = []result.Event{{T: 1, Kind: attack, Text: attack}}
			run.Verified = &result.Verified{OK: false, Acked: -1, Lost: math.MaxInt64, Detail: attack}
		case 6:
			run.Block, run.Order, run.Nodes, run.ValueBytes, run.ValueSize = -1, math.MaxInt32, -3, -1024, attack
			run.Snapshots = []result.Snapshot{{Bytes: -1, Install: -1}, {Bytes: math.MaxInt64, Install: math.MaxInt64}}
		}
	}
	for i := range r.Comparisons {
		c := &r.Comparisons[i]
		switch i % 4 {
		case 0:
			c.Ratio, c.Lo, c.Hi, c.P = nan, inf, nan, nan
		case 1:
			c.Metric, c.Baseline, c.Backend, c.Verdict = attack, attack, attack, "faster"
		case 2:
			c.Ratio, c.Lo, c.Hi = 1e300, 1e-300, 1e308
		}
	}
	r.Calibration = append(r.Calibration, result.Calibration{Kind: attack, Bytes: -1, IOPS: nan}, result.Calibration{Kind: floorKind, Bytes: math.MaxInt32, Latency: result.Latency{P50: math.MaxInt64}})
	r.Thresholds = []result.Threshold{{Expr: attack, Backend: attack, Value: &nan, Reason: attack}, {Expr: "", Value: &inf}}
	r.PowerCuts = []result.PowerCut{{Backend: attack, Mode: attack, Cuts: -1, Lost: math.MaxInt64, Detail: attack, Replay: attack}}
	return r
}

var dataURL = regexp.MustCompile(`data:application/gzip[^"]*`)

// writers are everything that writes a result.
func writers() map[string]func(io.Writer, *result.Result) error {
	return map[string]func(io.Writer, *result.Result) error{
		"json": JSON, "benchfmt": Benchfmt, "csv": CSV, "markdown": Markdown,
		"table":   func(w io.Writer, r *result.Result) error { return Table(w, r, TableOptions{Color: true}) },
		"narrow":  func(w io.Writer, r *result.Result) error { return Table(w, r, TableOptions{Width: 20}) },
		"html":    func(w io.Writer, r *result.Result) error { return HTML(w, r) },
		"merged":  func(w io.Writer, r *result.Result) error { b := *r; b.ID = "other"; return HTML(w, r, &b) },
		"compare": func(w io.Writer, r *result.Result) error { return CompareTable(w, r.Comparisons, TableOptions{}) },
		"compare page": func(w io.Writer, r *result.Result) error {
			return CompareHTML(w, []*result.Result{r}, r.Comparisons)
		},
		"lines": func(w io.Writer, r *result.Result) error {
			for i := range r.Runs {
				if _, err := io.WriteString(w, RunLine(&r.Runs[i])+"\n"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// TestHostileResult writes everything from a result that attacks.
func TestHostileResult(t *testing.T) {
	t.Parallel()
	r := hostile(t)
	Verdict(r)
	writers := writers()
	writers["html"] = func(w io.Writer, _ *result.Result) error { // as TestPage opens it
		_, err := w.Write(hostilePage(t))
		return err
	}
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(&b, r); err != nil {
				t.Fatal(err)
			}
			out := dataURL.ReplaceAllString(b.String(), "") // base64 spells anything
			if name == "json" {
				return // JSON carries what it was given
			}
			bad := []string{"\x00", "\r", "\u202e"}
			switch name {
			case "html", "merged", "compare page":
				bad = append(bad, "<script>document", "<img", "</style>]]", ">NaN", "NaN×", "+Inf", "&#43;Inf")
			case "markdown":
				out, _, _ = strings.Cut(out, "```sh") // a code block shows what it holds
				bad = append(bad, "<script", "<img", "\n|=1")
			case "csv":
				bad = append(bad, ",=1", "\n=1")
			}
			if name != "table" {
				bad = append(bad, "\x1b")
			} else {
				bad = append(bad, "\x1b[31m\x1b", "\x1b[31m|")
			}
			for _, s := range bad {
				if i := strings.Index(out, s); i >= 0 {
					t.Errorf("%q got through: …%q…", s, out[max(i-60, 0):min(i+60, len(out))])
				}
			}
		})
	}
}

// TestMissingFigures takes one part after the other away: what is not there is
// said to be not measured, and never 0.
func TestMissingFigures(t *testing.T) {
	empty := &result.Result{Schema: result.Schema, Runs: []result.Run{{Backend: "x"}, {Backend: "y", Block: 1}}}
	for name, r := range map[string]*result.Result{"nothing": {}, "two empty runs": empty} {
		for writer, write := range writers() {
			var b bytes.Buffer
			if err := write(&b, r); err != nil {
				t.Errorf("%s, %s: %v", name, writer, err)
			}
			if writer == "html" && name == "two empty runs" && (!strings.Contains(b.String(), "–") || strings.Count(b.String(), "ot measured in this run") < 4) {
				t.Errorf("%s: absent figures are not named", name)
			}
		}
	}
	var b bytes.Buffer
	if err := Table(&b, empty, TableOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "–  not measured") || strings.Contains(b.String(), " 0 ") {
		t.Errorf("the table of empty runs:\n%s", b.String())
	}
}

// FuzzRead feeds files to Read's decoder and, where they pass, to every writer.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := JSON(&b, plain(2, map[string]float64{"etcd-wal": 2600, "mem": 9000}, "etcd-wal", "mem")); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schema": "raftbench/v1", "runs": [{"backend": "a", "throughput_ops": 1e308, "response": {"count": -1, "p99_ns": 9223372036854775807, "hdr": "HISTFAAAAB"}}]}`))
	f.Add([]byte(`{"schema": "raftbench/v1", "runs": [{"load": {"point": "50%", "share": -1}, "series": [{"t_ns": 0, "buckets": [1]}], "windows": [1e9]}], "comparisons": [{"ratio": -1}]}`))
	f.Add([]byte(`{"schema": "raftbench/v2"}`))
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(bytes.NewReader(data))
		if err != nil || len(r.Runs) > 50 {
			return
		}
		for name, write := range writers() {
			if err := write(io.Discard, r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
