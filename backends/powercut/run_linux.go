package powercut

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/fusefs"
	"github.com/raftbench/raftbench/bench/result"
)

// nodeDir is the directory on the disk that the engine is given; its parent is
// on the same disk, for engines that sync it.
const nodeDir = "node"

// patience is how long one life may take before it counts as hung.
const patience = 2 * time.Minute

// Run cuts the power cfg.Cuts times and says what was lost. The error is for what
// kept it from doing so, a cancelled context among it; the row then holds what was
// done so far.
func Run(ctx context.Context, cfg Config) (result.PowerCut, error) {
	cfg.First = max(cfg.First, 1)
	row := result.PowerCut{
		Backend: cfg.Backend.Name, Params: cfg.Params, Mode: string(cfg.Mode), Seed: cfg.Seed,
	}
	started := time.Now()
	s, err := newStage(cfg.Dir, cfg.Child)
	if err != nil {
		return row, err
	}
	t := &torture{Config: cfg, stage: s, row: &row}
	err = t.run(ctx)
	if err == nil && row.FirstBad > 0 {
		err = t.shrink(ctx)
	}
	row.Elapsed = time.Since(started)
	return row, errors.Join(err, s.close())
}

// torture is one series.
type torture struct {
	Config
	stage *stage
	row   *result.PowerCut

	disk  *disk.Disk // as the next life finds it
	model *model
	// acked entries since the last check.
	acked int64
	// past are the last life that Open survived, and those after it, for the trace.
	past []*life
}

func (t *torture) run(ctx context.Context) error {
	t.fresh()
	for cut := t.First; cut < t.First+t.Cuts; cut++ {
		l, err := t.live(ctx, cut, t.steps(cut), t.idle(cut), t.trigger(cut))
		if err != nil {
			return err
		}
		t.row.Cuts++
		if t.Progress != nil {
			t.Progress(t.row.Cuts)
		}
		if t.judge(l, cut) && !t.KeepGoing {
			return nil
		}
	}
	// What the last cut left is checked by one more Open.
	last := t.First + t.Cuts
	l, err := t.live(ctx, last, 0, "", fusefs.Trigger{})
	if err != nil {
		return err
	}
	t.judge(l, last)
	return nil
}

func (t *torture) live(ctx context.Context, cut, steps int, idle string, trigger fusefs.Trigger) (*life, error) {
	l, err := t.stage.live(ctx, t.disk, t.model, script{
		order: order{
			Backend: t.Backend.Name, Params: t.Params, Seed: t.lifeSeed(cut), Steps: steps, Idle: idle,
		},
		trigger: trigger, patience: patience,
	}, t.Keep != "")
	if err != nil {
		return nil, err
	}
	t.disk = l.left
	if l.opened {
		t.row.Acked += t.acked
		t.acked = 0
	}
	t.acked += l.acked
	return l, nil
}

// fresh starts over with an empty store.
func (t *torture) fresh() {
	t.disk = newDisk(t.Mode)
	t.model, t.acked, t.past = &model{}, 0, nil
}

// newDisk holds the directory for the engine, durably, and nothing else.
func newDisk(mode disk.Mode) *disk.Disk {
	d := disk.New(mode)
	if _, errno := d.Mkdir(d.Root(), nodeDir, 0o755); errno != 0 {
		panic(fmt.Sprintf("powercut: mkdir on an empty disk: %v", errno))
	}
	d.SyncAll()
	return d
}

func (t *torture) dice(cut int, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(t.Seed), uint64(cut)<<8|stream))
}

func (t *torture) lifeSeed(cut int) int64 { return t.dice(cut, 1).Int64() }

// steps is how many the workload makes before it closes the store, or stops:
// mostly more than it will live to see.
func (t *torture) steps(cut int) int {
	r := t.dice(cut, 2)
	if t.idle(cut) != "" || r.IntN(10) == 0 {
		return 1 + r.IntN(40)
	}
	return maxSteps
}

// idle is the kind of step after which the cut finds the engine idle, for some of
// the cuts.
func (t *torture) idle(cut int) string {
	r := t.dice(cut, 4)
	if r.IntN(100) < 18 {
		return idleKinds[r.IntN(len(idleKinds))]
	}
	return ""
}

// rare are the operations that a cut is aimed at, because most lives would miss
// them.
var rare = []fusefs.Op{
	fusefs.OpCreate, fusefs.OpRename, fusefs.OpUnlink, fusefs.OpTruncate, fusefs.OpFsyncDir, fusefs.OpAllocate,
}

// trigger draws the moment of a cut.
func (t *torture) trigger(cut int) fusefs.Trigger {
	r := t.dice(cut, 3)
	if t.idle(cut) != "" {
		return fusefs.Trigger{}
	}
	switch p := r.IntN(100); {
	case p < 15: // in Open, or shortly after
		return fusefs.Trigger{N: 1 + r.IntN(15), Most: 15}
	case p < 40: // inside the sync of what may be torn
		return fusefs.Trigger{Op: fusefs.OpFsync, N: 1 + r.IntN(6), Pending: 2048, Most: 500}
	case p < 60:
		return fusefs.Trigger{Op: rare[r.IntN(len(rare))], N: 1 + r.IntN(4), Then: r.IntN(6), Most: 500}
	default:
		most := []int{20, 60, 150, 400}[r.IntN(4)]
		return fusefs.Trigger{N: 1 + r.IntN(most), Most: most}
	}
}

// judge counts what a life showed. It reports a failure, after which the store is
// a fresh one.
func (t *torture) judge(l *life, cut int) (failed bool) {
	problems := l.problems()
	if len(problems) == 0 {
		if l.opened {
			t.past = nil
		}
		t.past = append(t.past, l)
		return false
	}
	bad := cut
	if l.engineErr == "" || !l.opened {
		bad = max(bad-1, t.First) // the cut before this life did it
	}
	if l.verdict != nil {
		t.row.Lost += int64(l.verdict.lost)
		t.row.Wrong += int64(l.verdict.wrong)
	}
	switch {
	case l.verdict == nil && !l.opened:
		t.row.OpenFailed++
	case l.engineErr != "":
		t.row.Wrong++
	}
	if t.row.FirstBad == 0 {
		t.row.FirstBad = bad
		t.row.Detail = fmt.Sprintf("cut %d: %s", bad, clip(strings.Join(problems, "; ")))
		t.row.Replay = t.replay(t.First, bad-t.First+1)
		if err := t.keep(l, bad); err != nil {
			t.row.Detail += "; " + err.Error()
		}
		if t.Trace != nil {
			t.trace(l, bad, problems)
		}
	}
	t.fresh()
	return true
}

// maxDetail bounds what a row says, in bytes: some engines print what they were
// given.
const maxDetail = 600

func clip(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail] + "…"
	}
	return s
}

// keep stores the disk that an engine failed on.
func (t *torture) keep(l *life, bad int) error {
	if t.Keep == "" {
		return nil
	}
	dir := filepath.Join(t.Keep, fmt.Sprintf("%s-%s-seed%d-cut%d", t.Backend.Name, t.Mode, t.Seed, bad))
	if err := l.found.Dump(dir); err != nil {
		return err
	}
	t.row.Detail += "; the disk is kept in " + dir
	return nil
}

func (t *torture) trace(l *life, bad int, problems []string) {
	fmt.Fprintf(t.Trace, "%s, mode %s, seed %d: cut %d\n", backends.FormatName(t.Backend.Name, t.Params), t.Mode, t.Seed, bad)
	for _, p := range t.past {
		fmt.Fprintf(t.Trace, "\nA life that was cut (%v); calls of the storage, the last ones:\n", p.trigger)
		p.writeCalls(t.Trace)
		fmt.Fprintf(t.Trace, "Operations on the disk, the last ones:\n")
		p.fs.Trace(t.Trace)
	}
	fmt.Fprintf(t.Trace, "\nThe life after it:\n")
	l.writeCalls(t.Trace)
	l.fs.Trace(t.Trace)
	fmt.Fprintf(t.Trace, "\n%s\n", strings.Join(problems, "\n"))
}

func (t *torture) replay(first, cuts int) string {
	name := backends.FormatName(t.Backend.Name, t.Params)
	if strings.ContainsAny(name, "[]") {
		name = "'" + name + "'"
	}
	s := fmt.Sprintf("raftbench powercut --backends %s --mode %s --seed %d --cuts %d", name, t.Mode, t.Seed, cuts)
	if first > 1 {
		s += fmt.Sprintf(" --first %d", first)
	}
	return s
}

// shrink looks for the shortest end of the series that fails too, on a fresh
// store: each try costs a few lives.
func (t *torture) shrink(ctx context.Context) error {
	bad := t.row.FirstBad
	for back := 0; back < bad-t.First; back = back*2 + 1 {
		row := result.PowerCut{}
		cfg := t.Config
		cfg.First, cfg.Cuts, cfg.Progress, cfg.Trace, cfg.Keep, cfg.KeepGoing = bad-back, back+1, nil, nil, "", false
		try := &torture{Config: cfg, stage: t.stage, row: &row}
		if err := try.run(ctx); err != nil {
			return err
		}
		if row.FirstBad > 0 {
			t.row.Replay = t.replay(bad-back, back+1)
			return nil
		}
	}
	return nil
}
