package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/node"
)

func scrape(r *Run) string {
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text") // which could not be joined to others
	r.Handler().ServeHTTP(rec, req)
	return rec.Body.String()
}

func TestRun(t *testing.T) {
	r := New()
	if text := scrape(r); strings.Contains(text, "etcd_server") || strings.Contains(text, "raftbench_run_info") {
		t.Errorf("before the run begins there is\n%s", text)
	}
	r.Begin(bench.Live{
		Nodes: func() []bench.LiveNode {
			return []bench.LiveNode{
				{Status: node.Status{ID: 1, HasLeader: true, IsLeader: true, Committed: 12, Applied: 11, LeaderChanges: 2, LateHeartbeats: 3},
					Acknowledges: true, Sent: &node.TransportStats{Bytes: 100, Messages: 4, Dropped: 1}},
				{Status: node.Status{ID: 2}},
			}
		},
		Pending: func() int64 { return 7 }, Failed: func() int64 { return 5 },
	})
	r.Phase("measure")
	r.Saved(2, 15*time.Microsecond)
	r.Responded(time.Millisecond)
	text := scrape(r)
	for _, want := range []string{
		`etcd_disk_wal_fsync_duration_seconds_bucket{node="2",le="1e-05"} 0`,
		`etcd_disk_wal_fsync_duration_seconds_bucket{node="2",le="2e-05"} 1`,
		`raftbench_response_seconds_count 1`, `raftbench_run_phase{phase="measure"} 1`,
		`etcd_server_proposals_committed_total{node="1"} 12`, `etcd_server_proposals_applied_total{node="1"} 11`,
		`etcd_server_proposals_pending{node="1"} 7`, `etcd_server_proposals_failed_total{node="1"} 5`,
		`etcd_server_has_leader{node="2"} 0`, `etcd_server_is_leader{node="1"} 1`,
		`etcd_server_leader_changes_seen_total{node="1"} 2`, `etcd_server_heartbeat_send_failures_total{node="1"} 3`,
		`etcd_network_peer_sent_bytes_total{node="1"} 100`, `raftbench_network_sent_messages_total{node="1"} 4`,
		`raftbench_network_dropped_messages_total{node="1"} 1`, `go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	for _, no := range []string{`proposals_pending{node="2"}`, `peer_sent_bytes_total{node="2"}`, "# EOF"} {
		if strings.Contains(text, no) {
			t.Errorf("there is a %s that nobody knows, in\n%s", no, text)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "raftbench_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func BenchmarkSaved(b *testing.B) {
	r := New()
	for b.Loop() {
		r.Saved(1, 150*time.Microsecond)
	}
}

func BenchmarkResponded(b *testing.B) {
	r := New()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Responded(time.Millisecond)
		}
	})
}
