// Package disk measures the floor under every storage engine: how long this
// device takes to make a small write durable, with nothing in between but a file.
//
// [Calibrate] writes files in the directory where the data will go, in five ways:
//
//   - overwrite+fdatasync: a file that was allocated and written before, so that
//     no block needs allocating and no metadata changes. This is the floor.
//   - append+fdatasync: a growing file; the new size and the new blocks must
//     reach the disk too.
//   - append+fsync: the same, with the time stamps.
//   - overwrite+dsync: the written file, opened with O_DSYNC; write and sync are
//     one system call.
//   - overwrite+direct+dsync: the same past the page cache (O_DIRECT), which takes whole
//     blocks only, and not on every file system.
//
// The ways and sizes take turns in short rounds, so that a disk which slows down
// meanwhile slows all of them, and shows as [result.Calibration].Drift. Latency is
// the write and its sync together, because what makes one cheap often makes the
// other dear; Sync is the sync alone.
//
// The files stay linked while they are measured. Unlinking them at once would clean up
// even after a kill, but btrfs does not sync a file that has no name: the floor
// would be a page cache.
package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// The ways to make a write durable.
const (
	Overwrite   = "overwrite+fdatasync"
	Append      = "append+fdatasync"
	AppendFsync = "append+fsync"
	Dsync       = "overwrite+dsync"
	Direct      = "overwrite+direct+dsync"
)

// directBlock is what the place, the length and the memory of a write past the page
// cache are multiples of: the sector of every common device, or a multiple of it.
const directBlock = 4096

// RecipeBytes is the size of the write in etcd's recipe for fio: what its WAL was
// seen to write in 2019 (Olivi and Spreitzer, "Using fio to tell whether your
// storage is fast enough for etcd").
const RecipeBytes = 2300

// Options of a calibration. The zero value is the full one.
type Options struct {
	// Budget is how long the measuring takes, after the preparation; 10 s if 0.
	// A slow device may take longer: every way and size is tried once a round.
	Budget time.Duration
	// Rounds in which the ways and sizes take turns; 5 if 0.
	Rounds int
	// Kinds and Sizes are all that work here, and 2300 B, 4 KiB, 64 KiB and 1 MiB, if nil.
	Kinds []string
	Sizes []int
	// Seed of the order within the rounds, and of the bytes written.
	Seed int64
	// At and Block are copied to the rows.
	At    string
	Block int
}

// Quick is the calibration that brackets blocks: all ways and sizes in 1.5 s.
func Quick(at string, block int, seed int64) Options {
	return Options{Budget: 1500 * time.Millisecond, At: at, Block: block, Seed: seed}
}

func (o Options) withDefaults() Options {
	if o.Budget == 0 {
		o.Budget = 10 * time.Second
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Kinds == nil {
		o.Kinds = kinds
	}
	if o.Sizes == nil {
		o.Sizes = []int{RecipeBytes, 4 << 10, 64 << 10, 1 << 20}
	}
	return o
}

const (
	// writtenBytes is the length of the file that is overwritten. It is several
	// times the largest write, so that a write does not meet its own block in the
	// device's queue, and small enough to prepare in a fraction of a second.
	writtenBytes = 16 << 20
	// growBytes is where a growing file starts again, so that a fast device does
	// not fill itself; fio's recipe grows to 22 MiB.
	growBytes = 64 << 20
	// driftSamples is how many writes a round needs for its median to count
	// towards the drift; in fewer, one stall is the median.
	driftSamples = 20
)

// Calibrate measures dir and returns a row for each kind and size, in that order, but
// none for O_DIRECT and a size that is no whole number of blocks.
// Its files are named .raftbench-disk-*, take up to 64 MiB for each growing kind and
// size and 16 MiB besides, and are removed whatever happens but a kill. Errors name the file; a canceled ctx is returned as
// its cause.
func Calibrate(ctx context.Context, dir string, opts Options) ([]result.Calibration, error) {
	asked := opts.Kinds != nil
	opts = opts.withDefaults()
	cells, err := newCells(opts)
	if err != nil {
		return nil, err
	}
	files, err := newFiles(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("calibrate the disk: %w", err)
	}
	defer files.remove()
	if !asked && slices.Contains(kinds, Direct) {
		switch works, err := files.takesDirect(ctx); {
		case err != nil:
			return nil, fmt.Errorf("calibrate the disk: %w", err)
		case !works:
			cells = slices.DeleteFunc(cells, func(c *cell) bool { return c.kind == Direct })
		}
	}
	rng := rand.New(rand.NewPCG(uint64(opts.Seed), 0xd15c))
	weights := 0
	for _, c := range cells {
		weights += c.weight()
	}
	share := opts.Budget / time.Duration(opts.Rounds*weights)
	for range opts.Rounds {
		for _, i := range rng.Perm(len(cells)) {
			if err := cells[i].measure(ctx, files, share*time.Duration(cells[i].weight())); err != nil {
				return nil, fmt.Errorf("calibrate the disk: %w", err)
			}
		}
	}
	rows := make([]result.Calibration, len(cells))
	for i, c := range cells {
		rows[i] = c.row(opts)
	}
	return rows, nil
}

// cell is one kind at one size.
type cell struct {
	kind   string
	size   int
	rounds [][]sample
}

// weight: the floor is what every Save is divided by and what drift is judged by,
// so it is measured three times as long as the rest.
func (c *cell) weight() int {
	if c.kind == Overwrite {
		return 3
	}
	return 1
}

// sample is one write; sync is 0 where it is not a call of its own.
type sample struct{ total, sync time.Duration }

func newCells(opts Options) ([]*cell, error) {
	var cells []*cell
	for _, kind := range opts.Kinds {
		if !slices.Contains(kinds, kind) {
			return nil, fmt.Errorf("calibrate the disk: no way %q to sync on this system; known: %q", kind, kinds)
		}
		for _, size := range opts.Sizes {
			if size <= 0 || size > writtenBytes {
				return nil, fmt.Errorf("calibrate the disk: a write of %d bytes: want 1 to %d", size, writtenBytes)
			}
			if kind == Direct && size%directBlock != 0 {
				continue
			}
			cells = append(cells, &cell{kind: kind, size: size})
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("calibrate the disk: nothing to measure: %s writes whole blocks of %d bytes, not %d", Direct, directBlock, opts.Sizes)
	}
	return cells, nil
}

// measure writes and syncs for a share of the budget, at least once.
func (c *cell) measure(ctx context.Context, files *files, share time.Duration) error {
	t, err := files.target(ctx, c.kind, c.size)
	if err != nil {
		return err
	}
	var samples []sample
	for deadline := time.Now().Add(share); ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.makeRoom(c.size); err != nil {
			return err
		}
		s, err := t.write(files.payload(c.size, t.align))
		if err != nil {
			return err
		}
		samples = append(samples, s)
		if time.Now().After(deadline) {
			break
		}
	}
	c.rounds = append(c.rounds, samples)
	return nil
}

func (c *cell) row(opts Options) result.Calibration {
	var totals, syncs, medians []time.Duration
	var spent time.Duration
	for _, round := range c.rounds {
		var ofRound []time.Duration
		for _, s := range round {
			ofRound = append(ofRound, s.total)
			syncs = append(syncs, s.sync)
			spent += s.total
		}
		totals = append(totals, ofRound...)
		if len(ofRound) >= driftSamples {
			medians = append(medians, summarize(ofRound).P50)
		}
	}
	row := result.Calibration{At: opts.At, Block: opts.Block, Kind: c.kind, Bytes: c.size, Latency: summarize(totals)}
	if c.kind != Dsync && c.kind != Direct {
		l := summarize(syncs)
		row.Sync = &l
	}
	perSecond := float64(len(totals)) / spent.Seconds()
	row.IOPS, row.BytesPerSecond = perSecond, perSecond*float64(c.size)
	if len(medians) > 1 {
		row.Drift = float64(slices.Max(medians)-slices.Min(medians)) / float64(row.P50)
	}
	return row
}

// summarize sorts ds. Percentiles are nearest-rank, of the samples themselves: a
// few thousand need no histogram.
func summarize(ds []time.Duration) result.Latency {
	slices.Sort(ds)
	n := len(ds)
	// The smallest value that at least the share q of all does not exceed.
	at := func(perMille int) time.Duration { return ds[max(0, (n*perMille+999)/1000-1)] }
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	return result.Latency{
		Count: int64(n), Mean: sum / time.Duration(n),
		P50: at(500), P90: at(900), P99: at(990), P999: at(999), Max: ds[n-1],
	}
}
