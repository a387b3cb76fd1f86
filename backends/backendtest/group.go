package backendtest

import (
	"errors"
	"fmt"

	"github.com/raftbench/raftbench/backends"
)

// Group is the backend that opens one group of b's shared store, between two
// others which every Open checks and lengthens. Run and PowerCut prove with it that a
// group of a shared store keeps the rules, and that groups do not touch each other:
//
//	func TestSharedConformance(t *testing.T) { backendtest.Run(t, backendtest.Group(myengine.Backend)) }
func Group(b backends.Backend) backends.Backend {
	return backends.Backend{
		Name: b.Name, Doc: b.Doc, Durability: b.Durability, Params: b.Params,
		Open: func(opts backends.Options) (backends.Storage, backends.State, error) {
			store, err := b.OpenShared(opts)
			if err != nil {
				return nil, backends.State{}, err
			}
			g := &grouped{store: store}
			st, err := g.open(opts.Dir)
			if err != nil {
				return nil, backends.State{}, errors.Join(err, g.closeAll())
			}
			return g, st, nil
		},
	}
}

const (
	provedGroup     = 2
	neighbourSteps  = 3 // entries that an Open adds to each neighbour
	neighbourBytes  = 40
	neighbourTerm   = 1
	neighbourVoteID = 1
)

// grouped is the group under test, with the store that it is in.
type grouped struct {
	backends.Storage
	store      backends.Shared
	neighbours []backends.Storage
	closed     bool
}

func (g *grouped) open(dir string) (st backends.State, err error) {
	for _, id := range []uint64{provedGroup - 1, provedGroup + 1} {
		s, found, err := g.store.Group(id)
		if err != nil {
			return st, err
		}
		g.neighbours = append(g.neighbours, s)
		for i, e := range found.Entries {
			want := entry(uint64(i+1), neighbourTerm, neighbourBytes)
			if describe(found.Entries[i:i+1]) != describe(run(uint64(i+1), neighbourTerm, 1, neighbourBytes)) || string(e.GetData()) != string(want.GetData()) {
				return st, &backends.DamageError{File: dir, Err: fmt.Errorf("group %d holds %v as entry %d", id, e, i+1)}
			}
		}
		more := run(found.LastIndex()+1, neighbourTerm, neighbourSteps, neighbourBytes)
		if err := s.Save(hs(neighbourTerm, neighbourVoteID, found.LastIndex()), more); err != nil {
			return st, err
		}
	}
	g.Storage, st, err = g.store.Group(provedGroup)
	return st, err
}

func (g *grouped) closeAll() error {
	var errs []error
	for _, s := range g.neighbours {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, g.store.Close())...)
}

// Close implements backends.Storage.
func (g *grouped) Close() error {
	err := g.Storage.Close()
	if g.closed {
		return err
	}
	g.closed = true
	return errors.Join(err, g.closeAll())
}
