package stats

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// fill sets every number that v holds to a different value, and every pointer
// and slice to something.
func fill(v reflect.Value, next *int64) {
	*next++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Int, reflect.Int64:
		v.SetInt(*next)
	case reflect.Float64:
		v.SetFloat(float64(*next) + 0.5)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// TestMetricsReadTheJSON holds every metric against the value under its JSON path
// in a run where every figure differs.
func TestMetricsReadTheJSON(t *testing.T) {
	var r result.Run
	next := int64(0)
	fill(reflect.ValueOf(&r).Elem(), &next)
	data, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range Metrics() {
		if seen[m.Name] || seen[m.JSON] {
			t.Errorf("%s or %s is registered twice", m.Name, m.JSON)
		}
		seen[m.Name], seen[m.JSON] = true, true
		var at any = tree
		for part := range strings.SplitSeq(m.JSON, ".") {
			node, ok := at.(map[string]any)
			if !ok {
				t.Errorf("%s: no such path", m.JSON)
				break
			}
			at = node[part]
		}
		got, ok := m.Get(&r)
		if want, isNumber := at.(float64); !ok || !isNumber || got != want {
			t.Errorf("%s = %v (%v), but %s holds %v", m.Name, got, ok, m.JSON, at)
		}
		if m.Unit == Nanoseconds != (strings.HasSuffix(m.JSON, "_ns") || m.JSON == "cpu_ns_per_op") {
			t.Errorf("%s has unit %q", m.JSON, m.Unit)
		}
		if found, err := Lookup(m.JSON); err != nil || found.Name != m.Name {
			t.Errorf("Lookup(%q) = %q, %v", m.JSON, found.Name, err)
		}
	}
}

// TestAbsentIsNotZero: a run without figures has no metric but the counters.
func TestAbsentIsNotZero(t *testing.T) {
	counters := map[string]bool{"ops": true, "errors": true, "leader_changes": true, "late_heartbeats": true}
	for _, m := range Metrics() {
		if v, ok := m.Get(&result.Run{}); ok && !counters[m.Name] {
			t.Errorf("%s = %v in an empty run", m.Name, v)
		}
		if v, ok := m.Get(&result.Run{Error: "node 2 stopped"}); ok {
			t.Errorf("%s = %v in a run that failed", m.Name, v)
		}
	}
}

func TestSupported(t *testing.T) {
	for _, c := range []struct {
		count int64
		q     float64
		want  bool
	}{
		{999, 0.99, false}, {1000, 0.99, true}, {9999, 0.999, false}, {10000, 0.999, true},
		{19, 0.5, false}, {20, 0.5, true}, {100, 0.9, true}, {99, 0.9, false}, {0, 0.5, false},
	} {
		if got := Supported(c.count, c.q); got != c.want {
			t.Errorf("Supported(%d, %v) = %v", c.count, c.q, got)
		}
	}
	p99, err := Lookup("save.p99")
	if err != nil {
		t.Fatal(err)
	}
	few := &result.Run{Save: result.Latency{Count: 500, P99: time.Millisecond}}
	if _, ok := p99.Get(few); !ok || p99.Solid(few) {
		t.Error("p99 of 500 operations must be readable, but not relied upon")
	}
}

func TestLookupSuggests(t *testing.T) {
	for name, want := range map[string]string{
		"save.p98": "save.p99",
		"latency":  "response",
	} {
		if _, err := Lookup(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Lookup(%q): %v, want a hint at %s", name, err, want)
		}
	}
}
