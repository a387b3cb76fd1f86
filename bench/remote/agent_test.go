package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

// deadline bounds what a test waits for; nothing takes as long.
const deadline = 2 * time.Minute

// agent is one under test, in this process.
type agent struct {
	addr, dir string
	procs     *processes
	stop      func()
}

func startAgent(t *testing.T, id *Identity) *agent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{addr: l.Addr().String(), dir: filepath.Join(t.TempDir(), "agent"), procs: &processes{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server := &Agent{Dir: a.dir, PeerListen: transporttest.FreeAddr(t), Identity: id, Member: a.procs.command, Log: t.Logf}
	go func() { ended <- server.Run(ctx, l) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
		a.procs.allGone(t)
		if _, err := os.Stat(a.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the agent left %s", a.dir)
		}
	})
	t.Cleanup(a.stop)
	eventually(t, func() bool { return len(a.holds(t)) == 1 })
	return a
}

// holds lists what is in the agent's directory; its lock is always.
func (a *agent) holds(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(a.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// certificates makes an authority, and returns the identities of both roles.
func certificates(t *testing.T) (agent, coordinator *Identity, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "certs")
	if err := InitAuthority(dir, []string{"127.0.0.1", "node.example"}); err != nil {
		t.Fatal(err)
	}
	return identityOf(t, dir, RoleAgent), identityOf(t, dir, RoleCoordinator), dir
}

func identityOf(t *testing.T, dir string, role Role) *Identity {
	t.Helper()
	id, err := LoadIdentity(dir, role)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tokenOf(t *testing.T, token string, role Role) *Identity {
	t.Helper()
	id, err := TokenIdentity(tokenFile(t, token), role)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestHosts: a run on three agents, whose nodes talk TLS to each other.
func TestHosts(t *testing.T) {
	agentID, coordinatorID, _ := certificates(t)
	var agents []*agent
	var addrs []string
	for range 3 {
		a := startAgent(t, agentID)
		agents, addrs = append(agents, a), append(addrs, a.addr)
	}
	h, err := Dial(context.Background(), addrs, coordinatorID, "test")
	if err != nil {
		t.Fatal(err)
	}
	var res *result.Result
	for attempt := range 10 {
		res, err = runOnHosts(t, h, func() { agents[2].procs.kill(t, 2*attempt+1) })
		// Where the agents start their nodes slowly, node 1 is not always elected.
		if res == nil || len(res.Runs) < 2 || res.Runs[1].Leader != 3 {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Hosts) != 3 || res.Hosts[2].Addr != addrs[2] || len(res.Hosts[2].Calibration) == 0 || res.Hosts[2].Env.Cores == 0 {
		t.Errorf("hosts %+v", res.Hosts)
	}
	for _, run := range res.Runs {
		if run.Placement != "hosts" || run.Ops == 0 || run.Verified == nil || !run.Verified.OK || run.Leader == 0 || run.SaveFloor == 0 {
			t.Errorf("%s: placement %q, %d operations, verified %+v, leader %d, × floor %v", run.ID, run.Placement, run.Ops, run.Verified, run.Leader, run.SaveFloor)
		}
	}
	merged(t, res.Runs[0].Fsync)
	died(t, res.Runs[1], 3, "killed")
	h.Close()
	for _, a := range agents {
		eventually(t, func() bool { return len(a.holds(t)) == 1 })
		a.stop()
	}
}

// runOnHosts makes two runs, in the second of which something is done in the
// measured time.
func runOnHosts(t *testing.T, h *Hosts, do func()) (*result.Result, error) {
	t.Helper()
	spec, _ := suite(t, raw.Backend)
	spec.Placement, spec.RunOne, spec.Hosts = bench.PlacementHosts, h.RunOne, h
	spec.Repeats = 2
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	defer cancel()
	then := atMeasure(do)
	spec.Progress = func(p bench.Progress) {
		if p.Block == 2 {
			then(p)
		}
	}
	return bench.Run(ctx, spec)
}

// TestStrangers: whoever does not prove that it is a coordinator executes nothing,
// writes nothing, and gets no answer.
func TestStrangers(t *testing.T) {
	agentID, _, _ := certificates(t)
	_, foreign, _ := certificates(t)
	ownAgent, tooLate := expired(t)
	const secret, other = "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdeX"
	for name, tc := range map[string]struct {
		server *Identity
		try    func(t *testing.T, addr string) error
	}{
		"no certificate":        {agentID, func(t *testing.T, addr string) error { return dialWith(addr, &tls.Config{InsecureSkipVerify: true}) }},
		"wrong authority":       {agentID, func(t *testing.T, addr string) error { return dialBlindly(addr, foreign) }},
		"expired":               {ownAgent, func(t *testing.T, addr string) error { return dialBlindly(addr, tooLate) }},
		"an agent's":            {agentID, func(t *testing.T, addr string) error { return dialBlindly(addr, agentID) }},
		"token for certificate": {agentID, func(t *testing.T, addr string) error { return dialBlindly(addr, tokenOf(t, secret, RoleCoordinator)) }},
		"wrong token": {tokenOf(t, secret, RoleAgent), func(t *testing.T, addr string) error {
			return dialBlindly(addr, tokenOf(t, other, RoleCoordinator))
		}},
		"plain HTTP": {agentID, func(t *testing.T, addr string) error {
			client := http.Client{Timeout: deadline}
			resp, err := client.Post("http://"+addr+"/start", "application/json", strings.NewReader(`{"method":"start"}`))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}},
		"plain frames": {agentID, func(t *testing.T, addr string) error {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			return greet(conn, 1, "hello", hello{protocol, ""})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, tc.server)
			if err := tc.try(t, a.addr); err == nil {
				t.Error("it was answered")
			}
			untouched(t, a)
		})
	}
}

// untouched: no process was started, and nothing is there but the lock.
func untouched(t *testing.T, a *agent) {
	t.Helper()
	a.procs.mu.Lock()
	defer a.procs.mu.Unlock()
	if held := a.holds(t); len(held) != 1 || len(a.procs.cmds) > 0 {
		t.Errorf("the agent holds %v and started %d processes", held, len(a.procs.cmds))
	}
}

// dialBlindly does not care who the agent is, as an attacker would not.
func dialBlindly(addr string, id *Identity) error {
	pair, err := tls.X509KeyPair(id.Certificate, id.Key)
	if err != nil {
		return nil // which fails the test
	}
	return dialWith(addr, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &pair, nil
	}})
}

// dialWith asks an agent for a node in every way there is; nil where it answered.
func dialWith(addr string, config *tls.Config) error {
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	return greet(conn, 1, "hello", hello{protocol, ""})
}

// greet sends a request and returns nil where it was answered.
func greet(conn net.Conn, id uint64, method string, body any) error {
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if err := (&writer{out: conn}).write(message{ID: id, Method: method, Body: data}); err != nil {
		return err
	}
	m, _, err := newReader(conn).read()
	if err == nil {
		err = m.err()
	}
	return err
}

// expired is a coordinator whose certificate was good until an hour ago, and an agent
// of the same authority.
func expired(t *testing.T) (agent, coordinator *Identity) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	now := time.Now()
	ca := must(newAuthority(key, "raftbench", now.Add(-3*time.Hour), now.Add(time.Hour)))(t)
	return must(ca.issue(RoleAgent, nil, now.Add(-2*time.Hour), now.Add(time.Hour)))(t),
		must(ca.issue(RoleCoordinator, nil, now.Add(-2*time.Hour), now.Add(-time.Hour)))(t)
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestBadRequests: a coordinator that sends rubbish, too much, or requests in the
// wrong order starts nothing either.
func TestBadRequests(t *testing.T) {
	agentID, coordinatorID, _ := certificates(t)
	config, err := coordinatorID.TLS(RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(conn net.Conn) error{
		"no hello": func(conn net.Conn) error { return greet(conn, 1, "start", nil) },
		"other protocol": func(conn net.Conn) error {
			return greet(conn, 1, "hello", hello{protocol + 1, "9"})
		},
		"malformed": func(conn net.Conn) error {
			return rubbish(conn, append(binary.BigEndian.AppendUint32(nil, 12), "not JSON ..."...))
		},
		"oversized": func(conn net.Conn) error {
			return rubbish(conn, append(binary.BigEndian.AppendUint32(nil, maxFrame+1), make([]byte, 1024)...))
		},
		"HTTP": func(conn net.Conn) error { return rubbish(conn, []byte("POST /start HTTP/1.1\r\nHost: a\r\n\r\n")) },
		"no node": func(conn net.Conn) error {
			if err := greet(conn, 1, "hello", hello{protocol, ""}); err != nil {
				return nil // which fails the test
			}
			return greet(conn, 2, "open", opening{Backend: "raw", ID: 1})
		},
		"a place of its own": func(conn net.Conn) error {
			if err := greet(conn, 1, "hello", hello{protocol, ""}); err != nil {
				return nil // which fails the test
			}
			return greet(conn, 2, "place", place{Dir: "/tmp"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, agentID)
			conn, err := tls.Dial("tcp", a.addr, config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := try(conn); err == nil {
				t.Error("it was answered")
			}
			untouched(t, a)
		})
	}
}

// rubbish sends bytes, and returns what ends the connection.
func rubbish(conn net.Conn, data []byte) error {
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if _, err := conn.Write(data); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1))
	if n > 0 {
		return nil
	}
	return err
}

// TestLostCoordinator: what one leaves that is gone without a word is removed, the
// node's process and its data, and the next one is served. Meanwhile a second one
// is told that the agent is busy.
func TestLostCoordinator(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	a := startAgent(t, tokenOf(t, secret, RoleAgent))
	id := tokenOf(t, secret, RoleCoordinator)
	h, err := Dial(context.Background(), []string{a.addr}, id, "test")
	if err != nil {
		t.Fatal(err)
	}
	one := bench.One{Spec: bench.Spec{Nodes: 1, Transport: "grpc", ValueSize: 1024, Seed: 1}, Backend: raw.Backend}
	p, err := h.launch(context.Background(), one, 1, func(message) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.call(context.Background(), deadline, "open", opening{One: one, Backend: "raw", ID: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.call(context.Background(), deadline, "place", place{Dir: "/tmp"}, nil); err == nil || !strings.Contains(err.Error(), "agent's matter") {
		t.Errorf("a place by the coordinator: %v", err)
	}
	if held := strings.Join(a.holds(t), " "); !strings.Contains(held, "run-1") {
		t.Errorf("the agent holds %s while a node runs", held)
	}
	if _, err := Dial(context.Background(), []string{a.addr}, id, "test"); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a second coordinator: %v", err)
	}
	if err := h.links[0].conn.(*tls.Conn).NetConn().Close(); err != nil { // as if the machine were gone
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(a.holds(t)) == 1 })
	var next *Hosts
	eventually(t, func() bool {
		next, err = Dial(context.Background(), []string{a.addr}, id, "test")
		return err == nil
	})
	next.Close()
	a.procs.allGone(t)
}

// TestSilentCoordinator: one that does not even close its connection is lost when
// it has been silent for long.
func TestSilentCoordinator(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	line := &timedConn{here, 20 * time.Millisecond}
	if _, _, err := newReader(line).read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence ends with %v", err)
	}
}

func TestInitAuthority(t *testing.T) {
	_, _, dir := certificates(t)
	for _, name := range []string{"ca.key", "agent.key", "coordinator.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	before := must(os.ReadFile(filepath.Join(dir, "ca.key")))(t)
	if err := InitAuthority(dir, nil); err == nil || string(must(os.ReadFile(filepath.Join(dir, "ca.key")))(t)) != string(before) {
		t.Errorf("a second init: %v", err)
	}
	cert := must(identityOf(t, dir, RoleAgent).leaf())(t)
	for _, host := range []string{"127.0.0.1", "node.example", string(RoleAgent)} {
		if err := cert.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := LoadIdentity(t.TempDir(), RoleAgent); err == nil || !strings.Contains(err.Error(), "--init") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := TokenIdentity(tokenFile(t, "short"), RoleAgent); err == nil || !strings.Contains(err.Error(), "32") {
		t.Errorf("a short token: %v", err)
	}
}

// TestReachable: where others find a node.
func TestReachable(t *testing.T) {
	for _, tc := range [][3]string{
		{"a.example:7400", "0.0.0.0:7401", "a.example:7401"},
		{"a.example:7400", ":7401", "a.example:7401"},
		{"[fd00::1]:7400", "[::]:7401", "[fd00::1]:7401"},
		{"a.example:7400", "10.9.0.1:9000", "10.9.0.1:9000"},
	} {
		if got := reachable(tc[0], tc[1]); got != tc[2] {
			t.Errorf("agent %s, nodes %s: %s, want %s", tc[0], tc[1], got, tc[2])
		}
	}
}

// FuzzRead: whatever comes in, a reader ends with an error and without much memory.
func FuzzRead(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newReader(strings.NewReader(string(data)))
		for {
			m, frame, err := r.read()
			if err != nil {
				return
			}
			if len(frame) > len(data) {
				t.Fatalf("%d bytes from %d: %+v", len(frame), len(data), m)
			}
		}
	})
}

// TestLostAgent: a calibration leaves out a host that is gone.
func TestLostAgent(t *testing.T) {
	agentID, coordinatorID, _ := certificates(t)
	a, b := startAgent(t, agentID), startAgent(t, agentID)
	h, err := Dial(context.Background(), []string{a.addr, b.addr}, coordinatorID, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	b.stop()
	rows, err := h.Calibrate(context.Background(), disk.Options{At: "after", Block: 1, Budget: 100 * time.Millisecond})
	if err != nil || len(rows) != 2 || len(rows[0]) == 0 || len(rows[1]) > 0 {
		t.Errorf("%v, %v", rows, err)
	}
}
