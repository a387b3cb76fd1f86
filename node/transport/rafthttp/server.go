package rafthttp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
)

// handler is etcd's, with a count of the requests for Close and of the streams
// for Settled.
func (t *transport) handler() http.Handler {
	next := t.etcd.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !t.enter() {
			http.Error(w, errClosed.Error(), http.StatusServiceUnavailable)
			return
		}
		defer t.calls.Done()
		if strings.HasPrefix(r.URL.Path, rafthttp.RaftStreamPrefix+"/") {
			defer t.streams.begin(r.URL.Path)()
		}
		next.ServeHTTP(w, r)
	})
}

// listener is what etcd's server listens with: deadlines for each read and write,
// and TLS where asked for.
func (t *transport) listener(l net.Listener) (net.Listener, error) {
	l = timedListener{l, &t.sentBytes}
	if t.net.opts.TLS.Empty() {
		return l, nil
	}
	config, err := t.net.opts.TLS.ServerConfig()
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return tls.NewListener(l, config), nil
}

// timedListener counts what its connections write, and gives up on a peer that does
// not read or write for as long as etcd allows.
type timedListener struct {
	net.Listener
	bytes *atomic.Int64
}

func (l timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return timedConn{c, l.bytes}, nil
}

type timedConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(rafthttp.ConnWriteTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c timedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(rafthttp.ConnReadTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// streams knows the streams that peers have open, by their path:
// /raft/stream/msgapp/<id> and /raft/stream/message/<id>.
type streams struct {
	mu   sync.Mutex
	open map[string]openStream
}

type openStream struct {
	count int
	since time.Time
}

// begin notes a stream and returns what notes its end.
func (s *streams) begin(p string) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]openStream)
	}
	s.open[p] = openStream{s.open[p].count + 1, time.Now()}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		o := s.open[p]
		o.count--
		s.open[p] = o
	}
}

// settleTime is how long etcd may take from a stream's request to its use, which
// cannot be seen from here. It takes microseconds.
const settleTime = 100 * time.Millisecond

// settled reports whether a peer's two streams have been open for some time.
func (s *streams) settled(peer uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range []string{"msgapp", "message"} {
		o := s.open[path.Join(rafthttp.RaftStreamPrefix, kind, types.ID(peer).String())]
		if o.count == 0 || time.Since(o.since) < settleTime {
			return false
		}
	}
	return true
}

// snapshots is the folder into which etcd's handler writes the data of incoming
// snapshots, as <index>.snap.db.
type snapshots struct {
	dir string
	mu  sync.Mutex
}

// open opens the data of a snapshot, removes that of earlier ones, and returns how
// much there is. The file itself stays until a later one comes: etcd's handler
// keeps a file that is there when the same snapshot is sent again.
func (s *snapshots) open(files *snap.Snapshotter, index uint64) (_ *os.File, size int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, err := files.DBFilePath(index)
	if err != nil {
		return nil, 0, fmt.Errorf("rafthttp: snapshot %d: %w", index, err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("rafthttp: read the data of snapshot %d: %w", index, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("rafthttp: read the data of snapshot %d: %w", index, err)
	}
	all, err := filepath.Glob(filepath.Join(s.dir, "*.snap.db"))
	if err != nil {
		return nil, 0, fmt.Errorf("rafthttp: list snapshots: %w", err)
	}
	for _, old := range all {
		if filepath.Base(old) < filepath.Base(file) { // the index in hex, of fixed width
			if err := os.Remove(old); err != nil {
				return nil, 0, fmt.Errorf("rafthttp: remove an earlier snapshot: %w", err)
			}
		}
	}
	return f, fi.Size(), nil
}
