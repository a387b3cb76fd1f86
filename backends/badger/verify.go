package badger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2/z"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// prepare makes a directory ready for badger: what a killed process left in the
// page cache is forced to disk, logs that a crash left without a byte are
// removed, and what badger would crash on or pass over is an error.
func prepare(dir string, o badger.Options) error {
	if err := kvlog.SyncFiles(dir); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	tables, err := manifestTables(filepath.Join(dir, badger.ManifestFilename), o)
	noManifest := errors.Is(err, fs.ErrNotExist)
	if err != nil && !noManifest {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		var err error
		switch ext := filepath.Ext(f.Name()); ext {
		case ".mem", ".vlog":
			err = prepareLog(path, ext == ".mem")
		case ".sst":
			if noManifest {
				err = damaged(path, errors.New("there are tables, but no "+badger.ManifestFilename))
			}
		}
		if err != nil {
			return err
		}
	}
	for id, t := range tables {
		path := table.NewFilename(id, dir)
		if err := guard(path, func() error { return verifyTable(path, t.Compression) }); err != nil {
			return err
		}
	}
	return nil
}

func damaged(path string, err error) error {
	return &backends.DamageError{File: path, Err: err}
}

// guard turns a panic on damaged data into an error, and whatever is no error of
// the system into damage.
func guard(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damaged(path, fmt.Errorf("panic: %v", r))
		}
	}()
	err = f()
	if err == nil || errors.As(err, new(*backends.DamageError)) || errors.As(err, new(syscall.Errno)) {
		return err
	}
	return damaged(path, err)
}

// manifestTables are the tables that there must be.
func manifestTables(path string, o badger.Options) (map[uint64]badger.TableManifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m badger.Manifest
	err = guard(path, func() (err error) {
		m, _, err = badger.ReplayManifestFile(f, o.ExternalMagicVersion, o.WithLogger(nil))
		return err
	})
	return m.Tables, err
}

// A table ends with
//
//	index | length of index(4) | pb.Checksum of index | length of checksum(4)
//
// all big endian. badger reads the two lengths without looking at them.
func verifyTable(path string, compression options.CompressionType) error {
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return damaged(path, errors.New("the manifest names it, and it is empty or not there"))
	case err != nil:
		return err
	}
	f, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := verifyFooter(f.Data); err != nil {
		return errors.Join(err, f.Close(-1))
	}
	// The blocks, by badger itself. OpenTable closes f where it fails.
	t, err := table.OpenTable(f, table.Options{
		ReadOnly: true, Compression: compression, BlockSize: badger.DefaultOptions("").BlockSize, ChkMode: options.OnTableRead,
	})
	if err != nil {
		return err
	}
	return t.Close(-1)
}

func verifyFooter(b []byte) error {
	tail := func(n uint64) ([]byte, error) {
		if n > uint64(len(b)) {
			return nil, fmt.Errorf("the end of the table says %d bytes where there are %d", n, len(b))
		}
		part := b[uint64(len(b))-n:]
		b = b[:uint64(len(b))-n]
		return part, nil
	}
	sized := func() ([]byte, error) {
		n, err := tail(4)
		if err != nil {
			return nil, err
		}
		return tail(uint64(binary.BigEndian.Uint32(n)))
	}
	sum, err := sized()
	if err != nil {
		return err
	}
	want := &pb.Checksum{}
	if err := proto.Unmarshal(sum, want); err != nil {
		return err
	}
	if want.Algo != pb.Checksum_CRC32C && want.Algo != pb.Checksum_XXHash64 {
		return fmt.Errorf("unknown checksum %d", want.Algo)
	}
	index, err := sized()
	if err != nil {
		return err
	}
	return y.VerifyChecksum(index, want)
}

// prepareLog removes a log without a byte. Of a write-ahead log it checks that
// what badger would cut off is no more than one transaction that was being
// written.
func prepareLog(path string, wal bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return os.Remove(path)
	}
	if !wal {
		return nil // a value that is missing is found when it is read
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", path, err)
	}
	return errors.Join(guard(path, func() error { return verifyLog(b) }), syscall.Munmap(b))
}

// A write-ahead log begins with 20 bytes about encryption, and then holds records
//
//	meta(1) user meta(1) length of key, length of value, expiry (uvarint each)
//	key value CRC-32C(4) of all that
//
// The last 8 bytes of a key are the number of its transaction, counted down from
// the largest one. A transaction ends with a record whose value is its number as
// a decimal.
const (
	logHeader   = 20
	metaTxn     = 1 << 6 // part of a transaction
	metaFinTxn  = 1 << 7 // its end
	txnSize     = 8
	maxKey      = 1 << 16
	headerTries = 2 + 3*binary.MaxVarintLen64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// logRecord is what verifyLog needs of a record.
type logRecord struct {
	size int
	txn  uint64
	end  bool // of the transaction
}

// parseRecord reads the record at the start of b.
func parseRecord(b []byte) (r logRecord, ok bool) {
	if len(b) < 2 {
		return r, false
	}
	meta, n := b[0], 2
	var length [3]uint64 // key, value, expiry
	for i := range length {
		v, size := binary.Uvarint(b[n:min(len(b), headerTries)])
		if size <= 0 {
			return r, false
		}
		length[i], n = v, n+size
	}
	keySize, valueSize := length[0], length[1]
	if keySize < txnSize || keySize > maxKey || valueSize > uint64(len(b)) || uint64(n)+keySize+valueSize+crc32.Size > uint64(len(b)) {
		return r, false
	}
	end := n + int(keySize+valueSize)
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return r, false
	}
	key := b[n : n+int(keySize)]
	r = logRecord{size: end + crc32.Size, txn: math.MaxUint64 - binary.BigEndian.Uint64(key[len(key)-txnSize:]), end: meta&metaFinTxn != 0}
	return r, true
}

// verifyLog looks for transactions after the first record that cannot be read. A
// crash may leave one that is torn anywhere, the last one, since each is synced
// before the next is written. More than one, or one that does not follow the last
// whole one, means that a record in the middle is damaged, and badger would drop
// what was acknowledged.
func verifyLog(b []byte) error {
	if len(b) < logHeader {
		return fmt.Errorf("%d bytes, want at least %d", len(b), logHeader)
	}
	at, whole := logHeader, uint64(0) // the last transaction that is whole
	for {
		r, ok := parseRecord(b[at:])
		if !ok {
			break
		}
		at += r.size
		if r.end {
			whole = r.txn
		}
	}
	later := map[uint64]bool{}
	for i := at; i < len(b); {
		if skip := zeros(b[i:]); skip > 0 {
			i += skip
			continue
		}
		r, ok := parseRecord(b[i:])
		if !ok || b[i]&(metaTxn|metaFinTxn) == 0 {
			i++
			continue
		}
		later[r.txn] = true
		if len(later) > 1 || whole > 0 && r.txn > whole+1 {
			return fmt.Errorf("the record at offset %d cannot be read, and transactions follow it (%s after %d)", at, txnList(later), whole)
		}
		i += r.size
	}
	return nil
}

// zeros counts the zero bytes at the start of b, in steps of 8 where it can.
func zeros(b []byte) int {
	n := 0
	for len(b)-n >= 8 && binary.NativeEndian.Uint64(b[n:]) == 0 {
		n += 8
	}
	rest := b[n:min(len(b), n+8)]
	return n + len(rest) - len(bytes.TrimLeft(rest, "\x00"))
}

func txnList(set map[uint64]bool) string {
	var list []string
	for txn := range set {
		list = append(list, strconv.FormatUint(txn, 10))
	}
	sort.Strings(list)
	return strings.Join(list, ", ")
}
