package journal

import (
	"testing"

	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }
