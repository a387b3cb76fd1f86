package raw

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oDirect is the flag of open that takes writes past the page cache; 0 where there is none.
const oDirect = unix.O_DIRECT

// fdatasync forces the data of f, and of its metadata what is needed to read
// that data back, to disk.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

// fallocate reserves size bytes of blocks for f and makes it at least that long.
func fallocate(f *os.File, size int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != unix.EINTR {
			return err
		}
	}
}

// fileSystemID is the identity of the file system that a directory is on, on ext4 and btrfs
// its UUID; 0 where it has none.
func fileSystemID(dir string) (uint64, error) {
	for {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != unix.EINTR {
			return uint64(uint32(fs.Fsid.Val[0]))<<32 | uint64(uint32(fs.Fsid.Val[1])), err
		}
	}
}

// mapHuge returns n bytes or more that begin at a huge page, which they lie in where the
// system has one, and the mapping that they are a part of; nil where there is no memory.
func mapHuge(n int) (b, mapped []byte) {
	n = (n + hugePage - 1) / hugePage * hugePage
	mapped, err := unix.Mmap(-1, 0, n+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil
	}
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(mapped))) % hugePage)
	b = mapped[skip : skip+n : skip+n]
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // where it does not work, pages are small
	return b, mapped
}

// unmap gives back what mapHuge has mapped. It cannot fail: it is a mapping.
func unmap(mapped []byte) { _ = unix.Munmap(mapped) }
