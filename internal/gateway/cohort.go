package gateway

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/stats"
)

// cohort is one side of a comparison: its counters, and what its calls cost behind the gateway. Only calls that take part in
// a comparison pay for the bookkeeping.
type cohort struct {
	upstream string // what the version's upstream stands as among the downstreams; "" = its own name
	took     outcomes
	counters
	cpu, bytes atomic.Int64

	mu    sync.Mutex
	downs []*downstream // in ascending order of name
}

// downstream is what a cohort's calls caused at one system.
type downstream struct {
	name   string
	took   outcomes
	calls  atomic.Uint64
	failed atomic.Uint64
}

// outcomes keeps how long calls took, those that failed apart: an arm that fails at once, or refuses its slow calls, would pass
// for a quick one. A call that timed out has told how slow it is, and counts among the answered ones.
type outcomes struct{ latency, failed stats.Histogram }

func (o *outcomes) record(took time.Duration, class call.Class) {
	switch {
	case class == call.Shed:
	case class.Failed() && class != call.Timeout:
		o.failed.Record(took)
	default:
		o.latency.Record(took)
	}
}

const (
	mostDownstreams = 16 // told apart in a cohort; further ones are left out
	mostTimings     = 16 // read from one answer
	mostTiming      = 4 << 10
	longestTiming   = time.Hour
)

// add counts a call that went to upstream, whose answer said timings.
func (c *cohort) add(rec *call.Record, upstream string, timings []timing) {
	c.count(rec)
	c.took.record(rec.Latency, rec.Class)
	c.bytes.Add(max(rec.RequestBytes, 0) + max(rec.ResponseBytes, 0))
	if c.upstream != "" && upstream != "" {
		upstream = c.upstream
	}
	for _, a := range rec.Kept() {
		d := c.down(upstream)
		if d == nil {
			break
		}
		d.count(a.Latency, 1, a.Class)
	}
	if rec.Count == 0 {
		return // an answer from the cache tells what another call cost
	}
	for _, t := range timings {
		if t.name == "cpu" {
			c.cpu.Add(int64(t.took))
			continue
		}
		if d := c.down(t.name); d != nil {
			d.count(t.took, t.calls, call.OK)
		}
	}
}

// down is the downstream of that name; nil when there are too many.
func (c *cohort) down(name string) *downstream {
	if name == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, found := slices.BinarySearchFunc(c.downs, name, func(d *downstream, name string) int { return cmp.Compare(d.name, name) })
	if found {
		return c.downs[i]
	}
	if len(c.downs) == mostDownstreams {
		return nil
	}
	d := &downstream{name: name}
	c.downs = slices.Insert(c.downs, i, d)
	return d
}

func (d *downstream) count(took time.Duration, calls uint64, class call.Class) {
	d.took.record(took, class)
	d.calls.Add(calls)
	if class.Failed() {
		d.failed.Add(1)
	}
}

func (c *cohort) tally() stats.Tally {
	t := c.counters.tally()
	t.Latency, t.FailedLatency = c.took.latency.Snapshot(), c.took.failed.Snapshot()
	t.CPU, t.Bytes = time.Duration(c.cpu.Load()), uint64(c.bytes.Load())
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.downs {
		t.Downstreams = append(t.Downstreams, stats.Downstream{
			Name: d.name, Latency: d.took.latency.Snapshot(), FailedLatency: d.took.failed.Snapshot(), Calls: d.calls.Load(), Failed: d.failed.Load(),
		})
	}
	return t
}

// timing is one metric of an answer's Server-Timing: what a service says it spent, and where.
type timing struct {
	name  string
	took  time.Duration
	calls uint64 // the parameter "count", 1 without one
}

// timingsOf reads Server-Timing (W3C Server Timing, section 3): `cpu;dur=2.5, db;dur=8.1;count=3`. What is no such metric is
// passed over.
func timingsOf(h http.Header) (all []timing) {
	left := mostTiming
	for _, field := range h["Server-Timing"] {
		if left -= len(field); left < 0 {
			break
		}
		for metric := range strings.SplitSeq(field, ",") {
			if t, ok := parseTiming(metric); ok && len(all) < mostTimings {
				all = append(all, t)
			}
		}
	}
	return all
}

func parseTiming(metric string) (t timing, ok bool) {
	name, rest, _ := strings.Cut(metric, ";")
	t = timing{name: strings.ToLower(strings.TrimSpace(name)), calls: 1}
	for param := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(param, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "dur":
			ms, err := strconv.ParseFloat(value, 64)
			if err != nil || !(ms >= 0 && ms <= float64(longestTiming.Milliseconds())) {
				return t, false
			}
			t.took, ok = time.Duration(ms*float64(time.Millisecond)), true
		case "count":
			n, err := strconv.ParseUint(value, 10, 20)
			if err != nil {
				return t, false
			}
			t.calls = n
		}
	}
	return t, ok && token(t.name)
}

// token reports whether s is one, of a length that is fit for a name.
func token(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}
