package disk

// PageSize is the unit in which content is kept; a page that was never written
// is a hole and reads as zeros.
const PageSize = 4096

// page is immutable once shared is set: more than one image may point at it.
type page struct {
	data   [PageSize]byte
	shared bool
}

// image is the content of one file: sparse pages and a size. Bytes of a page
// beyond the size are zero.
type image struct {
	size  int64
	pages map[int64]*page
}

func newImage() image { return image{pages: map[int64]*page{}} }

// clone shares every page with the original.
func (im *image) clone() image {
	out := image{size: im.size, pages: make(map[int64]*page, len(im.pages))}
	for i, p := range im.pages {
		p.shared = true
		out.pages[i] = p
	}
	return out
}

// writable returns page i for writing, copied if it was shared, created if it
// was a hole.
func (im *image) writable(i int64) *page {
	p := im.pages[i]
	switch {
	case p == nil:
		p = &page{}
	case p.shared:
		p = &page{data: p.data}
	default:
		return p
	}
	im.pages[i] = p
	return p
}

// read fills buf from off and returns how many bytes lie below the size.
func (im *image) read(off int64, buf []byte) int {
	if off >= im.size {
		return 0
	}
	if rest := im.size - off; int64(len(buf)) > rest {
		buf = buf[:rest]
	}
	for n := 0; n < len(buf); {
		pos := off + int64(n)
		in := int(pos % PageSize)
		chunk := min(PageSize-in, len(buf)-n)
		if p := im.pages[pos/PageSize]; p != nil {
			copy(buf[n:n+chunk], p.data[in:])
		} else {
			clear(buf[n : n+chunk])
		}
		n += chunk
	}
	return len(buf)
}

// put stores data at off and leaves the size alone.
func (im *image) put(off int64, data []byte) {
	for len(data) > 0 {
		in := int(off % PageSize)
		n := copy(im.writable(off / PageSize).data[in:], data)
		data, off = data[n:], off+int64(n)
	}
}

// truncate sets the size; what lay beyond is gone.
func (im *image) truncate(size int64) {
	im.size = size
	last := (size + PageSize - 1) / PageSize
	for i := range im.pages {
		if i >= last {
			delete(im.pages, i)
		}
	}
	if in := size % PageSize; in != 0 && im.pages[size/PageSize] != nil {
		clear(im.writable(size / PageSize).data[in:])
	}
}

// zero makes [off, off+length) a hole.
func (im *image) zero(off, length int64) {
	for end := off + length; off < end; {
		i, in := off/PageSize, off%PageSize
		n := min(PageSize-in, end-off)
		if n == PageSize {
			delete(im.pages, i)
		} else if im.pages[i] != nil {
			clear(im.writable(i).data[in : in+n])
		}
		off += n
	}
}
