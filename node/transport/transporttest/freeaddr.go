package transporttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddr is an address of 127.0.0.1 on which nothing listens, for what must know
// its address before it listens. Its port is below those that the system gives to
// outgoing connections and to port 0 (32768 and up on Linux), so that no other test
// is given it in between.
func FreeAddr(t testing.TB) string {
	t.Helper()
	const first, ports, tries = 20000, 12000, 100
	var err error
	for range tries {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatalf("no free port from %d to %d: %v", first, first+ports-1, err)
	return ""
}
