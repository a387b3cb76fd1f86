package powercut

import "github.com/raftbench/raftbench/backends"

// smallParams are values of parameters, by backend, and under "" those that many
// engines have. A life on a dying disk writes some hundreds of KiB, far from
// filling what engines prepare by default: with these, files are begun, finished
// and removed within one.
var smallParams = map[string]map[string]string{
	"": {
		"segment":     "64KiB", // raw, etcd-wal, hashicorp-wal
		"memtable":    "256KiB",
		"initialmmap": "0", // bbolt: the file grows, and its mapping with it
	},
	// A value must fit a value log, and a batch of some MiB a memtable or two.
	"badger": {"memtable": "2MiB", "vlogsize": "16MiB", "valuethreshold": "16KiB"},
}

// SmallParams are settings with which b begins new files often, for those
// parameters that it documents under a name known here; nil where it has none.
// They are smaller than anyone would run an engine with, and part of the result.
func SmallParams(b backends.Backend) map[string]string {
	known := smallParams[b.Name]
	if known == nil {
		known = smallParams[""]
	}
	var params map[string]string
	for _, p := range b.Params {
		if v, ok := known[p.Name]; ok {
			if params == nil {
				params = map[string]string{}
			}
			params[p.Name] = v
		}
	}
	return params
}
