package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

func dump(dir string) {
	segs, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	sort.Strings(segs)
	for _, s := range segs {
		f, _ := os.Open(s)
		d := wal.NewDecoder(fileutil.NewFileReader(f))
		fmt.Println(s)
		rec := &walpb.Record{}
		for {
			at := d.LastOffset()
			err := d.Decode(rec)
			if err != nil {
				fmt.Println("  end", d.LastOffset(), err)
				break
			}
			switch rec.GetType() {
			case wal.CrcType:
				d.UpdateCRC(rec.GetCrc())
				fmt.Println(" ", at, " crc")
			case wal.SnapshotType:
				sn := &walpb.Snapshot{}
				proto.Unmarshal(rec.Data, sn)
				fmt.Println(" ", at, "  snap", sn)
			case wal.EntryType:
				fmt.Println(" ", at, "  entry", wal.MustUnmarshalEntry(rec.Data).GetIndex(), wal.MustUnmarshalEntry(rec.Data).GetTerm())
			case wal.StateType:
				fmt.Println(" ", at, "  state", wal.MustUnmarshalState(rec.Data))
			}
		}
	}
}
