package backendtest

import (
	"testing"

	"github.com/raftbench/raftbench/backends/mem"
)

func TestMem(t *testing.T) { Run(t, mem.Backend) }

func TestJournal(t *testing.T) { Run(t, broken(noBug)) }
