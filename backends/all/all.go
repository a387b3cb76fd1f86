// Package all is the explicit, ordered list of the backends that come with
// raftbench. Nothing registers itself: what is not in this list is not there.
package all

import (
	"fmt"
	"strings"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/badger"
	"github.com/raftbench/raftbench/backends/bbolt"
	"github.com/raftbench/raftbench/backends/etcdwal"
	"github.com/raftbench/raftbench/backends/hashicorpwal"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/pebble"
	"github.com/raftbench/raftbench/backends/raw"
)

// Backends are the engines, then the controls.
var Backends = []backends.Backend{
	etcdwal.Backend,
	bbolt.Backend,
	badger.Backend,
	pebble.Backend,
	hashicorpwal.Backend,
	raw.Backend,
	mem.Backend,
}

// Lookup finds a backend by name; the error lists those that are known.
func Lookup(name string) (backends.Backend, error) {
	names := make([]string, len(Backends))
	for i, b := range Backends {
		if b.Name == name {
			return b, nil
		}
		names[i] = b.Name
	}
	return backends.Backend{}, fmt.Errorf("unknown backend %q; known: %s", name, strings.Join(names, ", "))
}
