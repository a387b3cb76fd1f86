package raw

import "unsafe"

const (
	// pageBytes is the unit of what is written: that of the page cache, and of the
	// blocks of most file systems. A write past the cache (O_DIRECT) must begin and end
	// at a multiple of the device's sector, in the file and in memory, and a page is one.
	pageBytes = 4096
	// keepBuffer bounds the memory that one large Save leaves behind.
	keepBuffer = 4 << 20
)

// alignedBytes returns n zeros that begin at a multiple of pageBytes in memory.
func alignedBytes(n int) []byte {
	b := make([]byte, n+pageBytes)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % pageBytes)
	return b[skip : skip+n : skip+n]
}

// pages is a buffer that is written in whole pages.
type pages struct {
	b []byte // what is to be written; it begins at a page
	// huge asks for memory in huge pages where the buffer is more than a few pages long.
	// A write past the page cache hands memory to the disk, piece by piece where each
	// page is somewhere else: 128 entries of 1 KiB took 109 instead of 127 µs.
	huge   bool
	mapped []byte // the memory of b, where it is not the heap's
}

const (
	hugePage = 2 << 20
	// hugeFrom is how large a buffer must be for huge pages, of which one is in memory then.
	hugeFrom = 8 * pageBytes
)

// reserve makes room for n bytes and the rest of their last page, without moving what
// is there, so that appending does not take the buffer to other memory.
func (p *pages) reserve(n int64) {
	n = (n + pageBytes - 1) / pageBytes * pageBytes
	if int64(cap(p.b)) >= n {
		return
	}
	size := int(max(n, min(2*int64(cap(p.b)), keepBuffer)))
	if p.huge && size > hugeFrom {
		if b, mapped := mapHuge(size); b != nil {
			p.move(b, mapped)
			return
		}
	}
	p.move(alignedBytes(size), nil)
}

// move takes the buffer to other memory.
func (p *pages) move(to, mapped []byte) {
	to = to[:copy(to, p.b)]
	p.free()
	p.b, p.mapped = to, mapped
}

// whole fills the last page up with zeros, and returns all of them.
func (p *pages) whole() []byte {
	if part := len(p.b) % pageBytes; part > 0 {
		p.b = append(p.b, zeros[:pageBytes-part]...)
	}
	return p.b
}

// keep leaves nothing but the last page of b, if that is not a whole one. b may be the
// beginning of the buffer.
func (p *pages) keep(b []byte) {
	tail := b[len(b)/pageBytes*pageBytes:]
	if n := cap(p.b); n < pageBytes || n > keepBuffer {
		small := alignedBytes(pageBytes)
		small = small[:copy(small, tail)]
		p.free()
		p.b = small
		return
	}
	p.b = p.b[:copy(p.b[:pageBytes], tail)]
}

// free gives the buffer back.
func (p *pages) free() {
	if p.mapped != nil {
		unmap(p.mapped)
	}
	p.b, p.mapped = nil, nil
}
