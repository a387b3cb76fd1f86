package stats

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

var full = flag.Bool("full", false, "simulate enough tables for the figures of docs/method.md (minutes)")

// noise is a disk and its neighbours, in shares of the value.
type noise struct {
	name   string
	within float64 // scatter between two runs of one block
	level  func(rng *rand.Rand, before float64, block, blocks int) float64
}

// noises: the scatter is lognormal, and one run in twenty is slowed by five
// times as much again, in exponential share.
var noises = []noise{
	{"2 %, no drift", 0.02, steady},
	{"5 %, no drift", 0.05, steady},
	{"15 %, no drift", 0.15, steady},
	{"3 %, blocks jump by 10 %", 0.03, func(rng *rand.Rand, _ float64, _, _ int) float64 { return 0.1 * rng.NormFloat64() }},
	{"3 %, walk of 5 % a block", 0.03, func(rng *rand.Rand, before float64, _, _ int) float64 { return before + 0.05*rng.NormFloat64() }},
	{"3 %, trend to −30 %", 0.03, func(_ *rand.Rand, _ float64, block, blocks int) float64 {
		return math.Log(0.7) * float64(block) / float64(blocks)
	}},
}

func steady(*rand.Rand, float64, int, int) float64 { return 0 }

// simulate makes the runs of blocks with a baseline and others; the first other
// has its throughput times effect.
func (n noise) simulate(rng *rand.Rand, blocks, others int, effect float64) []result.Run {
	var runs []result.Run
	level := 0.0
	for block := 1; block <= blocks; block++ {
		level = n.level(rng, level, block, blocks)
		for i := range others + 1 {
			v := level + n.within*rng.NormFloat64()
			if rng.Float64() < 0.05 {
				v -= 5 * n.within * rng.ExpFloat64()
			}
			name := fmt.Sprintf("b%02d", i)
			switch i {
			case 0:
				name = "base"
			case 1:
				v += math.Log(effect)
			}
			runs = append(runs, run(name, block, 1000*math.Exp(v)))
		}
	}
	return runs
}

// outcome counts tables.
type outcome struct {
	tables  int
	wrong   int // tables with at least one wrong verdict
	found   int // tables whose first comparison found the effect
	covered int // tables whose first interval covers the effect
}

func (n noise) study(t *testing.T, tables, blocks, others int, effect float64) outcome {
	rng := Options{Seed: int64(others)}.rng(n.name, fmt.Sprint(effect))
	o := outcome{tables: tables}
	for i := range tables {
		opts := Options{Metrics: []string{"throughput"}, Seed: int64(i), rounds: 200}
		wrong := false
		for k, c := range mustCompare(t, n.simulate(rng, blocks, others, effect), "base", opts) {
			if k == 0 && c.Lo <= effect && effect <= c.Hi {
				o.covered++
			}
			truth := k == 0 && effect != 1
			switch c.Verdict {
			case Faster:
				wrong = true
			case Slower:
				if truth {
					o.found++
				} else {
					wrong = true
				}
			case Equivalent:
				wrong = wrong || truth
			}
		}
		if wrong {
			o.wrong++
		}
	}
	return o
}

func (o outcome) share(n int) float64 { return float64(n) / float64(o.tables) }

// TestNothingIsFound where there is nothing: at most 5 % of tables hold a wrong
// verdict, and intervals cover 1 in at least 95 % of cases, under every noise.
func TestNothingIsFound(t *testing.T) {
	for _, others := range []int{1, 5, 40} {
		tables := max(30, 400/others)
		if *full {
			tables = max(1000, 4000/others)
		}
		for _, n := range noises {
			o := n.study(t, tables, 10, others, 1)
			t.Logf("%-25s %2d comparisons: wrong tables %.3f, coverage %.3f (%d tables)",
				n.name, others, o.share(o.wrong), o.share(o.covered), tables)
			// Three standard errors of the simulation itself.
			slack := 3 * math.Sqrt(0.05*0.95/float64(tables))
			if o.share(o.wrong) > 0.05+slack {
				t.Errorf("%s, %d comparisons: %.3f of tables hold a wrong verdict", n.name, others, o.share(o.wrong))
			}
			if o.share(o.covered) < 0.95-slack {
				t.Errorf("%s, %d comparisons: intervals cover the truth in %.3f", n.name, others, o.share(o.covered))
			}
		}
	}
}

// TestTenPercentIsFound with 10 blocks where runs scatter by 2 or 3 %, drift or
// not, alone and in a table of 40.
func TestTenPercentIsFound(t *testing.T) {
	for _, others := range []int{1, 5, 40} {
		tables := max(30, 400/others)
		if *full {
			tables = max(1000, 4000/others)
		}
		for _, n := range noises {
			o := n.study(t, tables, 10, others, 0.9)
			t.Logf("%-25s %2d comparisons: found %.3f, coverage %.3f (%d tables)",
				n.name, others, o.share(o.found), o.share(o.covered), tables)
			if want := map[bool]float64{true: 0.75, false: 0.5}[others < 40]; n.within <= 0.03 && o.share(o.found) < want {
				t.Errorf("%s, %d comparisons: 10 %% less is found in %.3f", n.name, others, o.share(o.found))
			}
		}
	}
}
