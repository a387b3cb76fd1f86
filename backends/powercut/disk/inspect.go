package disk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Walk calls f with every durable file and directory below the root, parents
// first, in the order of their paths.
func (d *Disk) Walk(f func(path string, n *Node)) { walk("", d.root, f) }

func walk(dir string, n *Node, f func(string, *Node)) {
	for _, name := range n.sortedNames() {
		k := n.durableEntries[name]
		p := filepath.Join(dir, name)
		f(p, k)
		if k.dir {
			walk(p, k, f)
		}
	}
}

// Content is the durable content of a file.
func (n *Node) Content() []byte {
	buf := make([]byte, n.durable.size)
	n.durable.read(0, buf)
	return buf
}

// Dump writes the durable state into a directory of a real file system, holes
// left out, so that it can be looked at or opened again.
func (d *Disk) Dump(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("dump a disk: %w", err)
	}
	var err error
	d.Walk(func(path string, n *Node) {
		if err == nil {
			err = n.dump(filepath.Join(dir, path))
		}
	})
	if err != nil {
		return fmt.Errorf("dump a disk: %w", err)
	}
	return nil
}

func (n *Node) dump(path string) error {
	if n.dir {
		return os.MkdirAll(path, 0o755)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(n.durable.size); err != nil {
		return err
	}
	for i, p := range n.durable.pages {
		data := p.data[:min(PageSize, n.durable.size-i*PageSize)]
		if _, err := f.WriteAt(data, i*PageSize); err != nil {
			return err
		}
	}
	return f.Close()
}

// Load reads what [Disk.Dump] wrote, all of it durable.
func Load(mode Mode, dir string) (*Disk, error) {
	d := New(mode)
	if err := d.load(d.root, dir); err != nil {
		return nil, fmt.Errorf("load a disk: %w", err)
	}
	d.SyncAll()
	return d, nil
}

func (d *Disk) load(parent *Node, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		n, errno := d.create(parent, e.Name(), e.IsDir(), 0o755)
		if errno != 0 {
			return fmt.Errorf("%s: %w", path, errno)
		}
		if e.IsDir() {
			if err := d.load(n, path); err != nil {
				return err
			}
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for off := 0; off < len(content); off += PageSize {
			chunk := content[off:min(off+PageSize, len(content))]
			if slices.ContainsFunc(chunk, func(b byte) bool { return b != 0 }) {
				d.Write(n, int64(off), chunk)
			}
		}
		d.Truncate(n, int64(len(content)))
	}
	return nil
}

// Flip inverts one bit at rest, of the allocated bytes of the files whose path
// match accepts, and says where. It reports false where no such file holds data.
func (d *Disk) Flip(seed int64, match func(path string) bool) (path string, off int64, ok bool) {
	type place struct {
		path string
		n    *Node
		page int64
	}
	var places []place
	d.Walk(func(path string, n *Node) {
		if n.dir || !match(path) {
			return
		}
		for _, i := range slices.Sorted(maps.Keys(n.durable.pages)) {
			places = append(places, place{path, n, i})
		}
	})
	if len(places) == 0 {
		return "", 0, false
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	p := places[r.IntN(len(places))]
	in := r.Int64N(min(PageSize, p.n.durable.size-p.page*PageSize))
	pg := p.n.durable.writable(p.page)
	pg.data[in] ^= 1 << r.IntN(8)
	pg.shared = true
	p.n.live.pages[p.page] = pg
	return p.path, p.page*PageSize + in, true
}
