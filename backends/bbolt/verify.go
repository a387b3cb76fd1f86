package bbolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"syscall"

	"github.com/raftbench/raftbench/backends"
)

// This file reads bbolt's format (its internal/common), to find damage before
// bbolt does. It finds what `bbolt check` finds, and what that would crash on:
// bbolt follows page numbers and offsets without looking at them, and walks the
// tree in a goroutine of its own, whose panic nobody could catch, where the file
// does not hold the list of free pages.
//
// A page begins with
//
//	offset  size  content
//	0       8     page number
//	8       2     kind
//	10      2     elements
//	12      4     further pages that belong to it
//
// and its elements begin at 16: in a branch, position and size of the key (4
// each) and page (8); in a leaf, flags, position, size of key and value (4 each).
// A position counts from the element. The value follows the key. Everything is in
// the byte order of the machine.
const (
	pageHeader = 16
	element    = 16 // size of an element, in a branch or in a leaf

	kindBranch   = 0x01
	kindLeaf     = 0x02
	kindMeta     = 0x04
	kindFreelist = 0x10

	flagBucket   = 0x01
	bucketHeader = 16 // root page and sequence; root 0: the page follows inline

	metaMagic  = 0xED0CDAED
	metaSize   = 80 // header included
	noFreelist = math.MaxUint64
)

var order = binary.NativeEndian

// verify says what is wrong with the file at path.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < metaSize {
		return &backends.DamageError{File: path, Err: fmt.Errorf("the file has %d bytes", info.Size())}
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", path, err)
	}
	e := &engine{path: path}
	err = e.guard(func() error { return verifyImage(b) })
	if err != nil && !errors.As(err, new(*backends.DamageError)) {
		err = &backends.DamageError{File: path, Err: err}
	}
	return errors.Join(err, syscall.Munmap(b))
}

// meta is what a meta page says.
type meta struct {
	pageSize, root, freelist, pages, tx uint64
}

// parseMeta reads a meta page. There are two, at the start of the file and one
// page after it; bbolt writes them in turn and reads the one with the higher
// transaction.
//
//	offset  size  content
//	16      4     magic
//	20      4     version
//	24      4     page size
//	28      4     flags
//	32      16    bucket of the buckets: root page and sequence
//	48      8     page of the list of free pages, all ones if there is none
//	56      8     pages in use, free ones included
//	64      8     transaction
//	72      8     FNV-1a of the bytes from 16 to 72
func parseMeta(b []byte) (meta, error) {
	if len(b) < metaSize {
		return meta{}, fmt.Errorf("%d bytes, want %d", len(b), metaSize)
	}
	if got := order.Uint32(b[16:]); got != metaMagic {
		return meta{}, fmt.Errorf("magic number is %#x, want %#x", got, uint32(metaMagic))
	}
	if got := order.Uint16(b[8:]); got != kindMeta {
		return meta{}, fmt.Errorf("kind is %#x, want %#x", got, kindMeta)
	}
	h := fnv.New64a()
	h.Write(b[16:72])
	if got, want := h.Sum64(), order.Uint64(b[72:]); got != want {
		return meta{}, fmt.Errorf("checksum is %016x, the page says %016x", got, want)
	}
	m := meta{
		pageSize: uint64(order.Uint32(b[24:])), root: order.Uint64(b[32:]), freelist: order.Uint64(b[48:]),
		pages: order.Uint64(b[56:]), tx: order.Uint64(b[64:]),
	}
	if m.pageSize < metaSize || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, fmt.Errorf("a page size of %d", m.pageSize)
	}
	return m, nil
}

// verifyImage checks both meta pages, every page of the tree, and that each page
// is in the tree or free, and not both.
func verifyImage(b []byte) error {
	m, err := parseMeta(b)
	if err != nil {
		return fmt.Errorf("meta page 0: %w", err)
	}
	if uint64(len(b)) < 2*m.pageSize {
		return fmt.Errorf("the file has %d bytes, its meta pages alone take %d", len(b), 2*m.pageSize)
	}
	m1, err := parseMeta(b[m.pageSize:])
	if err != nil {
		return fmt.Errorf("meta page 1: %w", err)
	}
	if m1.pageSize != m.pageSize {
		return fmt.Errorf("the meta pages name page sizes %d and %d", m.pageSize, m1.pageSize)
	}
	if m1.tx > m.tx {
		m = m1
	}
	if m.pages > uint64(len(b))/m.pageSize {
		return fmt.Errorf("the file has %d bytes, its meta page says %d pages of %d", len(b), m.pages, m.pageSize)
	}
	v := &verifier{b: b, meta: m, seen: make([]bool, m.pages)}
	for i := range min(m.pages, 2) {
		v.seen[i] = true
	}
	if err := v.tree(m.root, nil, nil, 0, v.rootElement); err != nil {
		return err
	}
	if !v.bucket {
		return errNoBucket
	}
	return v.free()
}

// verifier walks one file.
type verifier struct {
	b      []byte
	meta   meta
	seen   []bool // by page: in the tree, or free
	bucket bool   // the bucket was found
}

// take returns a page with those that belong to it, which nothing else may use.
func (v *verifier) take(id uint64) ([]byte, error) {
	size := v.meta.pageSize
	if id < 2 || id >= v.meta.pages {
		return nil, fmt.Errorf("page %d is not one of 2 to %d", id, v.meta.pages-1)
	}
	p := v.b[id*size:]
	if got := order.Uint64(p); got != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, got)
	}
	n := uint64(order.Uint32(p[12:])) + 1
	if n > v.meta.pages-id {
		return nil, fmt.Errorf("page %d says that it takes %d pages of %d", id, n, v.meta.pages)
	}
	for i := id; i < id+n; i++ {
		if v.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		v.seen[i] = true
	}
	return p[:n*size], nil
}

// maxDepth bounds the recursion: a tree of 2^64 keys, two in each branch, is not
// deeper.
const maxDepth = 64

// tree checks the tree under page id, whose keys must be from lo to before hi
// (nil: any), and calls leaf for its elements.
func (v *verifier) tree(id uint64, lo, hi []byte, depth int, leaf leafFunc) error {
	p, err := v.take(id)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("page %d: the tree is deeper than %d", id, maxDepth)
	}
	switch kind := order.Uint16(p[8:]); kind {
	case kindLeaf:
		err = v.leaf(p, lo, hi, leaf)
	case kindBranch:
		err = v.branch(p, lo, hi, depth, leaf)
	default:
		err = fmt.Errorf("kind %#x, want a branch or a leaf", kind)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// leafFunc checks one element of a leaf.
type leafFunc func(flags uint32, key, value []byte) error

// elements is how many p holds, all of them within p.
func elements(p []byte) (int, error) {
	n := int(order.Uint16(p[10:]))
	if pageHeader+n*element > len(p) {
		return 0, fmt.Errorf("%d elements in %d bytes", n, len(p))
	}
	return n, nil
}

// field is size bytes at a position counted from element i.
func field(p []byte, i int, pos, size uint64) ([]byte, error) {
	from := uint64(pageHeader+i*element) + pos
	if from+size > uint64(len(p)) {
		return nil, fmt.Errorf("element %d reaches from %d to %d of %d bytes", i, from, from+size, len(p))
	}
	return p[from : from+size], nil
}

// inOrder checks a key against the one before it and the bounds of its page.
func inOrder(i int, prev, key, lo, hi []byte) error {
	switch {
	case len(key) == 0:
		return fmt.Errorf("element %d has no key", i)
	case i > 0 && bytes.Compare(prev, key) >= 0, i == 0 && lo != nil && bytes.Compare(lo, key) > 0,
		hi != nil && bytes.Compare(key, hi) >= 0:
		return fmt.Errorf("the key %q of element %d is out of order", key, i)
	}
	return nil
}

func (v *verifier) leaf(p, lo, hi []byte, f leafFunc) error {
	n, err := elements(p)
	if err != nil {
		return err
	}
	var prev []byte
	for i := range n {
		el := p[pageHeader+i*element:]
		pos, ksize, vsize := uint64(order.Uint32(el[4:])), uint64(order.Uint32(el[8:])), uint64(order.Uint32(el[12:]))
		kv, err := field(p, i, pos, ksize+vsize)
		if err != nil {
			return err
		}
		if err := inOrder(i, prev, kv[:ksize], lo, hi); err != nil {
			return err
		}
		prev = kv[:ksize]
		if err := f(order.Uint32(el), kv[:ksize], kv[ksize:]); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) branch(p, lo, hi []byte, depth int, leaf leafFunc) error {
	n, err := elements(p)
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("a branch without elements")
	}
	keys := make([][]byte, n)
	for i := range n {
		el := p[pageHeader+i*element:]
		if keys[i], err = field(p, i, uint64(order.Uint32(el)), uint64(order.Uint32(el[4:]))); err != nil {
			return err
		}
		if err := inOrder(i, keys[max(i-1, 0)], keys[i], lo, hi); err != nil {
			return err
		}
	}
	for i, key := range keys {
		to := hi
		if i+1 < n {
			to = keys[i+1]
		}
		if err := v.tree(order.Uint64(p[pageHeader+i*element+8:]), key, to, depth+1, leaf); err != nil {
			return err
		}
	}
	return nil
}

// rootElement is the bucket, or too much.
func (v *verifier) rootElement(flags uint32, key, value []byte) error {
	if flags != flagBucket || !bytes.Equal(key, bucketName) {
		return fmt.Errorf("there is a key %q beside the bucket %q", key, bucketName)
	}
	v.bucket = true
	if len(value) < bucketHeader {
		return fmt.Errorf("bucket %q has a header of %d bytes", key, len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return v.tree(root, nil, nil, 0, record)
	}
	p := value[bucketHeader:]
	if len(p) < pageHeader || order.Uint16(p[8:]) != kindLeaf {
		return fmt.Errorf("bucket %q has neither a root nor a leaf", key)
	}
	return v.leaf(p, nil, nil, record)
}

// record is an element of the bucket; kvlog checks what it says.
func record(flags uint32, key, _ []byte) error {
	if flags != 0 {
		return fmt.Errorf("the key %q has flags %#x", key, flags)
	}
	return nil
}

// free checks that the free pages are those that are not in the tree.
func (v *verifier) free() error {
	if v.meta.freelist == noFreelist {
		return nil // bbolt takes for free what is not in the tree
	}
	p, err := v.take(v.meta.freelist)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	if kind := order.Uint16(p[8:]); kind != kindFreelist {
		return fmt.Errorf("list of free pages: page %d is of kind %#x, want %#x", v.meta.freelist, kind, kindFreelist)
	}
	n, ids := uint64(order.Uint16(p[10:])), p[pageHeader:]
	if n == math.MaxUint16 { // too many for the header
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return fmt.Errorf("list of free pages: %d pages in %d bytes", n, len(ids))
	}
	for i := range n {
		id := order.Uint64(ids[8*i:])
		if id < 2 || id >= v.meta.pages || v.seen[id] {
			return fmt.Errorf("list of free pages: page %d is in use, or no page", id)
		}
		v.seen[id] = true
	}
	for id, seen := range v.seen {
		if !seen {
			return fmt.Errorf("page %d is neither free nor in use", id)
		}
	}
	return nil
}
