package bench

import (
	"maps"
	"slices"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

// Networks makes the network of a run by the transport's name. Transports with
// heavy dependencies are added by whoever wants them; bench itself knows mem.
type Networks map[string]func() (node.Network, error)

// DefaultNetworks holds mem, and mem+codec, which marshals every message as a
// real network does.
func DefaultNetworks() Networks {
	return Networks{
		"mem":       func() (node.Network, error) { return mem.New(mem.Options{}), nil },
		"mem+codec": func() (node.Network, error) { return mem.New(mem.Options{Codec: true}), nil },
	}
}

func (ns Networks) known(name string) bool { return ns[name] != nil }

func (ns Networks) names() []string { return slices.Sorted(maps.Keys(ns)) }
