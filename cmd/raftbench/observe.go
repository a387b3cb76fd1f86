package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/metrics"
	"github.com/raftbench/raftbench/bench/result"
)

// observatory serves --metrics and --pprof. Every run has a process of its own, so
// what is asked for is passed on to that of the run under way, over a socket that
// has the same name for all of them: the address outlives the runs.
type observatory struct {
	dir      string // holds the socket
	servers  []*http.Server
	worker   *http.Client
	planned  prometheus.Gauge
	finished prometheus.Gauge
}

// scrapeTimeout bounds what a run takes to answer for its metrics.
const scrapeTimeout = 5 * time.Second

// observe begins to listen where the flags say; nil where they say nothing. It
// tells w the addresses, of which a port may have been chosen by the system.
func (f *runFlags) observe(w io.Writer) (*observatory, error) {
	if f.metrics == "" && f.pprof == "" {
		return nil, nil
	}
	if f.inProcess {
		return nil, usageErrorf("--metrics and --pprof need a process for each run; leave --in-process away")
	}
	if f.placement != string(bench.PlacementInProcess) || f.hosts != "" {
		return nil, usageErrorf("--metrics and --pprof show the process of a run; with --placement process and --hosts there are several")
	}
	dir, err := os.MkdirTemp("", "raftbench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the workers' socket: %w", err)
	}
	o := &observatory{dir: dir,
		planned:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "raftbench_suite_runs", Help: "Runs that the suite makes."}),
		finished: prometheus.NewGauge(prometheus.GaugeOpts{Name: "raftbench_suite_runs_finished", Help: "Runs that are finished."}),
	}
	o.worker = &http.Client{Timeout: scrapeTimeout, Transport: o.transport()}
	for _, s := range []struct {
		flag, addr, path string
		handler          http.Handler
	}{{"metrics", f.metrics, "/metrics", o.metrics()}, {"pprof", f.pprof, "/debug/pprof/", o.profiles()}} {
		if s.addr == "" {
			continue
		}
		at, err := o.listen(s.addr, s.path, s.handler)
		if err != nil {
			o.Close()
			return nil, fmt.Errorf("--%s %s: %w", s.flag, s.addr, err)
		}
		fmt.Fprintf(w, "%s: http://%s%s\n", s.flag, at, s.path)
	}
	return o, nil
}

// listen serves one address.
func (o *observatory) listen(addr, path string, h http.Handler) (net.Addr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usageErrorf("%v; want host:port or :port", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, usageErrorf("port %q: want 0 to 65535", port)
	}
	if host == "" {
		host = "127.0.0.1" // nobody else unless told
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(path, h)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: scrapeTimeout}
	o.servers = append(o.servers, s)
	go func() { _ = s.Serve(l) }() // until Close
	return l.Addr(), nil
}

// Close stops to listen. It may be called on nil.
func (o *observatory) Close() {
	if o == nil {
		return
	}
	for _, s := range o.servers {
		_ = s.Close() // what is being answered is cut off
	}
	o.worker.CloseIdleConnections()
	_ = os.RemoveAll(o.dir) // a directory for temporary files is cleaned by others too
}

func (o *observatory) socket() string { return filepath.Join(o.dir, "run") }

// transport connects to the run under way, whatever the address.
func (o *observatory) transport() *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true, // the next request may be for the next process
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", o.socket())
		},
	}
}

// runOne makes one run in a process of its own that answers on the socket.
func (o *observatory) runOne(ctx context.Context, one bench.One, progress func(bench.Progress)) (result.Run, error) {
	return runJob(ctx, job{Backend: one.Backend.Label(), One: one, Serve: o.socket()}, progress)
}

// note takes the state of the suite from its progress. It may be called on nil.
func (o *observatory) note(e bench.Progress) {
	if o == nil || e.Runs == 0 {
		return
	}
	o.planned.Set(float64(e.Runs))
	if e.Phase == "done" {
		o.finished.Set(float64(e.Order))
	}
}

// metrics answers with what is known of the suite, and what the run under way says.
// Between runs there is only the suite.
func (o *observatory) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(o.planned, o.finished)
	suite := metrics.Text(registry)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), scrapeTimeout)
		defer cancel()
		ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://run/metrics", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer, err := o.worker.Do(ask) // before anything is written, as it may fail
		suite.ServeHTTP(w, req)
		if err != nil {
			return
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode == http.StatusOK {
			_, _ = io.Copy(w, answer.Body)
		}
	})
}

// profiles passes everything on to the run under way.
func (o *observatory) profiles() http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "run"})
	proxy.Transport = o.transport()
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, fmt.Sprintf("no run is under way, or it has just ended: %v", err), http.StatusServiceUnavailable)
	}
	return proxy
}

// serveRun answers for the run of this process on a socket; stop ends that.
func serveRun(socket string, live *metrics.Run) (stop func(), err error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("take over the socket of the run before: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", live.Handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: scrapeTimeout}
	go func() { _ = s.Serve(l) }() // until stop
	return func() { _ = s.Close() }, nil
}
