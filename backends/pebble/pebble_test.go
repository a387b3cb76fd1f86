package pebble

import (
	"testing"

	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestContract(t *testing.T) { backendtest.Run(t, Backend) }
