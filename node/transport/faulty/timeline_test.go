package faulty

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const ms = time.Millisecond
	all := Between(AllNodes, AllNodes)
	for _, c := range []struct {
		text string
		want Timeline
	}{
		{"", nil},
		{" ; \n # nothing\n", nil},
		{"at 5s: cut 1-2,3", Timeline{{5 * time.Second, Fault{Kind: Cut, Links: []LinkSet{Between(Nodes(1), Nodes(2, 3))}}}}},
		{"at 5s: cut 1>2", Timeline{{5 * time.Second, Fault{Kind: Cut, Links: []LinkSet{OneWay(Nodes(1), Nodes(2))}}}}},
		{"at 1m30s:cut leader-* 3>1", Timeline{{90 * time.Second, Fault{Kind: Cut, Links: []LinkSet{
			Between(NodeSet{Leader: true}, AllNodes), OneWay(Nodes(3), Nodes(1))}}}}},
		{"at 0s: stall *", Timeline{{0, Fault{Kind: Stall, Links: []LinkSet{all}}}}},
		{"at 2s: delay 1-2 10ms±2ms", Timeline{{2 * time.Second, Fault{Kind: Delay, Links: []LinkSet{Between(Nodes(1), Nodes(2))}, Delay: 10 * ms, Jitter: 2 * ms}}}},
		{"at 2s: delay * 10ms+-2ms", Timeline{{2 * time.Second, Fault{Kind: Delay, Links: []LinkSet{all}, Delay: 10 * ms, Jitter: 2 * ms}}}},
		{"at 2s: delay * 0s", Timeline{{2 * time.Second, Fault{Kind: Delay, Links: []LinkSet{all}}}}},
		{"at 4s: loss 1>2 2.5%", Timeline{{4 * time.Second, Fault{Kind: Loss, Links: []LinkSet{OneWay(Nodes(1), Nodes(2))}, Loss: 0.025}}}},
		{"at 6s: rate 2,1,2-3 10MiB/s", Timeline{{6 * time.Second, Fault{Kind: Rate, Links: []LinkSet{Between(Nodes(2, 1), Nodes(3))}, Rate: 10 << 20}}}},
		{"at 1s: rate * 500kB/s", Timeline{{time.Second, Fault{Kind: Rate, Links: []LinkSet{all}, Rate: 500e3}}}},
		{"at 9s: kill leader,2", Timeline{{9 * time.Second, Fault{Kind: Kill, Nodes: NodeSet{Leader: true, IDs: []uint64{2}}}}}},
		{"at 9s: start", Timeline{{9 * time.Second, Fault{Kind: Start}}}},
		{"at 9s: start 2", Timeline{{9 * time.Second, Fault{Kind: Start, Nodes: Nodes(2)}}}},
		{"at 9s: heal", Timeline{{9 * time.Second, Fault{Kind: Heal}}}},
		{"at 9s: heal 1-2", Timeline{{9 * time.Second, Fault{Kind: Heal, Links: []LinkSet{Between(Nodes(1), Nodes(2))}}}}},
		{"at 2s: heal # later\nat 1s: stall *; at 2s: cut *", Timeline{
			{time.Second, Fault{Kind: Stall, Links: []LinkSet{all}}},
			{2 * time.Second, Fault{Kind: Heal}},
			{2 * time.Second, Fault{Kind: Cut, Links: []LinkSet{all}}}}},
	} {
		got, err := Parse(c.text)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q\n got %+v, %v\nwant %+v", c.text, got, err, c.want)
			continue
		}
		if again, err := Parse(got.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%q written as %q reads as %+v, %v", c.text, got, again, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"cut 1-2":                       `want "at <duration>: <fault>"`,
		"at 5s cut 1-2":                 `want "at <duration>: <fault>"`,
		"at 5: cut 1-2":                 `"5" is no duration`,
		"at -5s: cut 1-2":               `"-5s" is no duration`,
		"at 5s:":                        "want a fault",
		"at 5s: break 1-2":              `unknown fault "break"; known are`,
		"at 5s: cut":                    "cut what?",
		"at 5s: kill":                   "kill what?",
		"at 5s: kill 1-2":               `"1-2" is no node`,
		"at 5s: kill 1 2":               "kill what?",
		"at 5s: start leader":           "who leads",
		"at 5s: cut 12":                 `"12" is no link`,
		"at 5s: cut 1-":                 `"" is no node`,
		"at 5s: cut 0-1":                `"0" is no node`,
		"at 5s: cut 1-2-3":              `"2-3" is no node`,
		"at 5s: cut 1-boss":             `"boss" is no node: want a number from 1, leader or *`,
		"at 5s: delay 10ms":             `want "delay", links and a value`,
		"at 5s: delay 1-2 fast":         `"fast" is no duration`,
		"at 5s: delay 1-2 10ms±x":       `"x" is no duration`,
		"at 5s: delay 1-2 1ms±2ms":      "the jitter exceeds the delay",
		"at 5s: loss 1-2 5":             `"5" is no loss`,
		"at 5s: loss 1-2 101%":          `"101%" is no loss`,
		"at 5s: loss 1-2 NaN%":          `"NaN%" is no loss`,
		"at 5s: rate 1-2 10MiB":         `"10MiB" is no rate`,
		"at 5s: rate 1-2 0B/s":          `"0B/s" is no rate`,
		"at 5s: rate 1-2 18EB/s":        `"18EB/s" is no rate`,
		"at 1s: heal\n\nat 2s: heal 1 ": `line 3: "at 2s: heal 1"`,
	} {
		if tl, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want an error with %q", text, tl, err, want)
		}
	}
}

// Nothing that can be parsed changes when it is written and parsed again, and no
// input panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"at 5s: cut leader,1>*; at 6s: heal", "at 1ms: delay 1-2 2>3,4 10ms±2ms # x\nat 1h: loss * 0.1%",
		"at 0s: rate 1-2 1.5GiB/s", "at 1s: kill leader,3; at 2s: start; at 3s: start *", "at 2562047h: stall *", "at 1s: loss * 1e-7%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tl, err := Parse(text)
		if err != nil {
			return
		}
		written := tl.String()
		again, err := Parse(written)
		if err != nil {
			t.Fatalf("%q was written as %q, which is no timeline: %v", text, written, err)
		}
		if again.String() != written || len(again) != len(tl) {
			t.Fatalf("%q was written as %q, and then as %q", text, written, again)
		}
	})
}
