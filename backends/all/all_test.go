package all

import (
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
)

func TestBackends(t *testing.T) {
	var names []string
	for _, b := range Backends {
		names = append(names, b.Name)
		if b.Doc == "" || b.Open == nil || b.Durability != backends.Synced && b.Durability != backends.None {
			t.Errorf("%s is not complete: %+v", b.Name, b)
		}
		for _, p := range b.Params {
			if p.Name == "" || p.Default == "" || p.Meaning == "" {
				t.Errorf("%s: the parameter %+v is not documented", b.Name, p)
			}
		}
		if got, err := Lookup(b.Name); err != nil || got.Name != b.Name {
			t.Errorf("Lookup(%q) returned %q (%v)", b.Name, got.Name, err)
		}
	}
	const want = "etcd-wal, bbolt, badger, pebble, hashicorp-wal, raw, mem"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("backends are %s, want %s", got, want)
	}
	if _, err := Lookup("nosuch"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Lookup of an unknown name: %v; want an error that lists %s", err, want)
	}
}
