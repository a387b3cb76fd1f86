package powercut

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/fusefs"
	"github.com/raftbench/raftbench/bench/result"
)

// stall is how long a stalling disk takes.
const stall = 2 * time.Second

// stepsAfterFault is how much of the workload follows a fault that no call
// reported, and savesAfterError how many Saves are tried after one that did.
const stepsAfterFault, savesAfterError = 100, 5

// faultCase is one fault.
type faultCase struct {
	name  string
	fault fusefs.Fault
	// free, if not 0, is the space left instead of a fault.
	free int64
	// atOpen: it strikes the second Open of a store, not the workload.
	atOpen bool
	// flips: bits are inverted while the disk is at rest.
	flips bool
}

var faultCases = []faultCase{
	{name: "EIO on write, once", fault: fusefs.Fault{Op: fusefs.OpWrite, Err: syscall.EIO, Times: 1}},
	{name: "EIO on write, from then on", fault: fusefs.Fault{Op: fusefs.OpWrite, Err: syscall.EIO}},
	{name: "EIO on fsync, once", fault: fusefs.Fault{Op: fusefs.OpFsync, Err: syscall.EIO, Times: 1}},
	{name: "EIO on fsync, from then on", fault: fusefs.Fault{Op: fusefs.OpFsync, Err: syscall.EIO}},
	{name: "EIO on fsync of a directory, once", fault: fusefs.Fault{Op: fusefs.OpFsyncDir, Err: syscall.EIO, Times: 1}},
	{name: "EIO on creating a file, once", fault: fusefs.Fault{Op: fusefs.OpCreate, Err: syscall.EIO, Times: 1}},
	{name: "EIO on read at open", fault: fusefs.Fault{Op: fusefs.OpRead, Err: syscall.EIO}, atOpen: true},
	{name: "disk full (ENOSPC)", free: 64 << 10},
	{name: "short write, once", fault: fusefs.Fault{Op: fusefs.OpWrite, Short: true, Times: 1}},
	{name: "fsync stalls 2 s, once", fault: fusefs.Fault{Op: fusefs.OpFsync, Delay: stall, Times: 1}},
	{name: "bit flip at rest", flips: true},
}

// FaultNames lists the faults in the order of the table.
func FaultNames() []string {
	names := make([]string, len(faultCases))
	for i, c := range faultCases {
		names[i] = c.name
	}
	return names
}

// Faults injects each fault a few times, at different moments of a workload, and
// says what the engine made of it. After each the power is cut, the disk is
// healthy again, and what Open returns is checked. The error is for what kept it
// from doing so.
func Faults(ctx context.Context, cfg FaultConfig) ([]result.Fault, error) {
	cfg.Runs = cmp.Or(cfg.Runs, 5)
	cfg.Mode = cmp.Or(cfg.Mode, disk.Strict)
	s, err := newStage(cfg.Dir, cfg.Child)
	if err != nil {
		return nil, err
	}
	var rows []result.Fault
	for _, c := range faultCases {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, c.name) {
			continue
		}
		if cfg.Progress != nil {
			cfg.Progress(c.name)
		}
		row, err := faultRow(ctx, s, cfg, c)
		if err != nil {
			return rows, errors.Join(err, s.close())
		}
		rows = append(rows, row)
	}
	return rows, s.close()
}

func faultRow(ctx context.Context, s *stage, cfg FaultConfig, c faultCase) (result.Fault, error) {
	row := result.Fault{
		Backend: cfg.Backend.Name, Params: cfg.Params, Fault: c.name, Seed: cfg.Seed,
		Outcomes: map[string]int{}, OK: true,
	}
	runs := cfg.Runs
	switch {
	case c.flips:
		runs *= 10
	case c.fault.Delay > 0:
		runs = min(runs, 2)
	}
	worst := len(outcomesByBadness)
	for i := range runs {
		f := &faultRun{
			stage: s, cfg: cfg, faultCase: c, model: &model{}, disk: newDisk(cfg.Mode),
			dice: rand.New(rand.NewPCG(uint64(cfg.Seed), uint64(i)+100)), fatal: []int{2, 0, 3, 0}[i%4],
		}
		outcome, detail, err := f.run(ctx)
		if err != nil {
			return row, err
		}
		if !outcome.OK() && cfg.Trace != nil {
			f.trace(cfg.Trace, outcome, detail)
		}
		row.Outcomes[string(outcome)]++
		row.OK = row.OK && outcome.OK()
		if bad := slices.Index(outcomesByBadness, outcome); bad < worst {
			worst, row.Outcome, row.Detail = bad, string(outcome), clip(strings.ReplaceAll(detail, s.dir+"/", ""))
		}
	}
	return row, nil
}

// faultRun is one injection.
type faultRun struct {
	stage *stage
	cfg   FaultConfig
	faultCase
	model *model
	disk  *disk.Disk
	dice  *rand.Rand
	// fatal: the power fails so many operations after the fault, before anything
	// writes the same pages again; 0 is at the end of the workload.
	fatal int
	lives []*life
}

// trace tells what the lives of this run did.
func (f *faultRun) trace(w io.Writer, outcome Outcome, detail string) {
	fmt.Fprintf(w, "%s: %s: %s: %s\n", f.cfg.Backend.Name, f.name, outcome, detail)
	for _, l := range f.lives {
		fmt.Fprintf(w, "\nA life; calls of the storage, the last ones:\n")
		l.writeCalls(w)
		fmt.Fprintf(w, "Operations on the disk, the last ones:\n")
		l.fs.Trace(w)
	}
}

func (f *faultRun) run(ctx context.Context) (Outcome, string, error) {
	if f.atOpen || f.flips {
		return f.runAtOpen(ctx)
	}
	var fired func() int
	at := 3 + f.dice.IntN(40)
	l, err := f.live(ctx, script{
		order: order{Steps: at + stepsAfterFault}, injectAt: at,
		inject: func(fs *fusefs.FS) { fired = f.strike(fs) },
	})
	if err != nil {
		return "", "", err
	}
	struck := l.acks >= at && (f.free > 0 || fired() > 0)
	if problems := l.unhealthyOpen(); problems != "" {
		return Lost, problems, nil
	}
	outcome, detail := f.classify(l, struck)
	// What was acknowledged must be there on a disk that is healthy again.
	f.disk.SetCapacity(0)
	after, err := f.live(ctx, script{})
	if err != nil {
		return "", "", err
	}
	problems := after.problems()
	switch {
	case outcome == WentOn && len(problems) > 0:
		return WentOn, detail + "; found later: " + strings.Join(problems, "; "), nil
	case after.openErr != "" && (outcome == Stopped || outcome == Crashed):
		return Bricked, detail + "; found later: " + strings.Join(problems, "; "), nil
	case len(problems) > 0:
		if l.engineErr != "" {
			problems = append([]string{l.engineErr}, problems...)
		}
		return Lost, strings.Join(problems, "; "), nil
	}
	return outcome, detail, nil
}

// strike injects the fault, some operations ahead.
func (f *faultRun) strike(fs *fusefs.FS) (fired func() int) {
	if f.free > 0 {
		fs.Fill(f.free)
		return nil
	}
	fault := f.fault
	fault.Skip = f.dice.IntN(4)
	fault.Match = notLock
	fault.Fatal = f.fatal
	return fs.Inject(fault)
}

// notLock leaves the lock file alone: it holds nothing.
func notLock(p string) bool { return path.Base(p) != dirlock.FileName }

// live runs the engine on the disk; what was not durable is lost at the end.
func (f *faultRun) live(ctx context.Context, sc script) (*life, error) {
	sc.Backend, sc.Params, sc.Seed = f.cfg.Backend.Name, f.cfg.Params, f.dice.Int64()
	sc.AfterError, sc.patience, sc.lose = savesAfterError, patience, true
	l, err := f.stage.live(ctx, f.disk, f.model, sc, false)
	if err != nil {
		return nil, err
	}
	f.disk = l.left
	f.lives = append(f.lives, l)
	return l, nil
}

// classify names what a life with a fault showed; whether something was lost
// shows later.
func (f *faultRun) classify(l *life, struck bool) (Outcome, string) {
	switch {
	case l.hung:
		return Hung, l.engineErr
	case l.lateAcks > 0:
		return WentOn, fmt.Sprintf("after %q, %d Saves were acknowledged", l.engineErr, l.lateAcks)
	case l.crashed:
		return Crashed, l.engineErr
	case l.engineErr != "":
		return Stopped, l.engineErr
	case !struck:
		return NotHit, ""
	case f.fault.Delay > 0:
		return Waited, ""
	}
	if !l.closed {
		return Absorbed, "no call had failed when the power was cut, shortly after the fault"
	}
	return Absorbed, "no call failed"
}

// unhealthyOpen is what went wrong before there was a fault.
func (l *life) unhealthyOpen() string {
	if l.openErr != "" || !l.verdict.ok() {
		return "before the fault: " + strings.Join(l.problems(), "; ")
	}
	return ""
}

// runAtOpen fills a store, makes everything durable, and lets a second Open meet
// the fault.
func (f *faultRun) runAtOpen(ctx context.Context) (Outcome, string, error) {
	l, err := f.live(ctx, script{order: order{Steps: 20 + f.dice.IntN(100)}})
	if err != nil {
		return "", "", err
	}
	if l.openErr != "" || l.engineErr != "" || !l.closed {
		return Lost, "before the fault: " + strings.Join(l.problems(), "; "), nil
	}
	filled := f.disk
	what := ""
	var inject func(*fusefs.FS)
	var fired func() int
	if f.flips {
		f.disk = filled.Lose() // a copy
		p, off, ok := f.disk.Flip(f.dice.Int64(), notLock)
		if !ok {
			return NotHit, "", nil
		}
		what = fmt.Sprintf("one bit of %s at offset %d: ", strings.TrimPrefix(p, nodeDir+"/"), off)
	} else {
		fault := f.fault
		fault.Skip, fault.Match = f.dice.IntN(3), notLock
		inject = func(fs *fusefs.FS) { fired = fs.Inject(fault) }
	}
	expect := *f.model
	met, err := f.live(ctx, script{inject: inject})
	if err != nil {
		return "", "", err
	}
	outcome, detail := classifyOpen(met)
	if f.flips && outcome == Lost && expect.before != nil && expect.before.check(met.report).ok() {
		outcome = LostTail
	}
	if !f.flips && fired() == 0 && outcome == Absorbed {
		outcome = NotHit
	}
	if f.flips || outcome == Lost {
		return outcome, what + detail, nil
	}
	// An error is no reason to cut the log: on a healthy disk all of it is there.
	f.model = &expect
	after, err := f.live(ctx, script{})
	if err != nil {
		return "", "", err
	}
	if problems := after.problems(); len(problems) > 0 {
		return Lost, detail + "; and on a healthy disk: " + strings.Join(problems, "; "), nil
	}
	return outcome, detail, nil
}

func classifyOpen(l *life) (Outcome, string) {
	switch {
	case l.hung:
		return Hung, l.openErr
	case l.crashed:
		return Crashed, cmp.Or(l.openErr, l.engineErr)
	case l.openErr != "":
		return Stopped, l.openErr
	case !l.verdict.ok():
		return Lost, strings.Join(l.verdict.problems, "; ")
	case l.engineErr != "":
		return Stopped, l.engineErr
	}
	return Absorbed, "Open returned everything"
}
