package result

// Fault is what one engine made of one disk fault.
type Fault struct {
	Backend string            `json:"backend"`
	Params  map[string]string `json:"params,omitempty"`
	Fault   string            `json:"fault"` // "EIO on fsync, once", …
	Seed    int64             `json:"seed"`
	// Outcome is the worst of Outcomes: "lost", "went on", "hung", "stopped",
	// "crashed", "absorbed", "waited", "not hit"; see backends/powercut.Outcome.
	Outcome  string         `json:"outcome"`
	Outcomes map[string]int `json:"outcomes"` // how often each
	OK       bool           `json:"ok"`       // every one of them is right
	// Detail says more about one run with the worst outcome: the error that the
	// engine returned, or what it lost.
	Detail string `json:"detail,omitempty"`
}
