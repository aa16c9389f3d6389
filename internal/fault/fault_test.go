package fault

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/setting"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func started(t *testing.T, c Config) *Set {
	t.Helper()
	s := new(Set)
	if c.Name == "" {
		c.Name = "f"
	}
	if c.TTL == 0 {
		c.TTL = time.Minute
	}
	if err := s.Start(t0, c); err != nil {
		t.Fatal(err)
	}
	return s
}

func abort(share float64) Config { return Config{Share: share, Abort: 503} }

func hits(s *Set, now time.Time, n int, c Call) (list []bool) {
	for range n {
		e, ok := s.Decide(now, AtCall, "", c)
		e.Release()
		list = append(list, ok)
	}
	return list
}

func count(list []bool) (n int) {
	for _, ok := range list {
		if ok {
			n++
		}
	}
	return n
}

func TestNothingHappensUnlessItWasStarted(t *testing.T) {
	var s Set
	if e, ok := s.Decide(t0, AtCall, "", Call{}); ok || e != (Effect{}) || !s.Idle() || s.Observe(t0, true) != nil {
		t.Errorf("%+v", e)
	}
}

func TestTheShareIsHit(t *testing.T) {
	for _, share := range []float64{0.01, 0.3, 1} {
		got := float64(count(hits(started(t, abort(share)), t0, 20_000, Call{}))) / 20_000
		if math.Abs(got-share) > 0.01 {
			t.Errorf("%v of the calls were hit; want %v", got, share)
		}
	}
}

func TestEqualSeedsHitEqualCalls(t *testing.T) {
	with := func(seed int) []bool {
		c := abort(0.5)
		c.Seed = seed
		return hits(started(t, c), t0, 200, Call{})
	}
	if !slices.Equal(with(7), with(7)) || slices.Equal(with(7), with(8)) {
		t.Error("the seed does not decide")
	}
}

func TestAFaultEndsByItself(t *testing.T) {
	c := abort(1)
	c.TTL = 10 * time.Second
	s := started(t, c)
	if n := count(hits(s, t0.Add(10*time.Second-1), 3, Call{})); n != 3 {
		t.Errorf("%d hits before the end", n)
	}
	if n := count(hits(s, t0.Add(10*time.Second), 3, Call{})); n != 0 {
		t.Errorf("%d hits after the end", n)
	}
	if l := s.List(t0.Add(time.Hour)); len(l) != 1 || l[0].Stopped != "ttl" || l[0].Hits != 3 || !s.Idle() {
		t.Errorf("%+v", l)
	}
}

func TestConditions(t *testing.T) {
	h := http.Header{"X-Test": {"a", "b"}}
	for _, c := range []struct {
		name string
		edit func(*Config)
		at   Point
		end  string
		call Call
		want bool
	}{
		{"the method", func(c *Config) { c.Method = []string{"GET", "PUT"} }, AtCall, "", Call{Method: "PUT"}, true},
		{"another method", func(c *Config) { c.Method = []string{"GET", "PUT"} }, AtCall, "", Call{Method: "POST"}, false},
		{"a header", func(c *Config) { c.Headers = map[string]string{"x-test": "b"} }, AtCall, "", Call{Header: h}, true},
		{"another value", func(c *Config) { c.Headers = map[string]string{"X-Test": "c"} }, AtCall, "", Call{Header: h}, false},
		{"any value", func(c *Config) { c.Headers = map[string]string{"X-Test": "*"} }, AtCall, "", Call{Header: h}, true},
		{"no header", func(c *Config) { c.Headers = map[string]string{"X-Other": "*"} }, AtCall, "", Call{Header: h}, false},
		{"one of two headers", func(c *Config) { c.Headers = map[string]string{"X-Test": "a", "X-Other": "*"} }, AtCall, "", Call{Header: h}, false},
		{"the other point", func(*Config) {}, AtAttempt, "a:1", Call{}, false},
		{"an attempt", func(c *Config) { c.At = AtAttempt }, AtAttempt, "a:1", Call{}, true},
		{"the endpoint", func(c *Config) { c.At, c.Endpoint = AtAttempt, "a:1" }, AtAttempt, "a:1", Call{}, true},
		{"another endpoint", func(c *Config) { c.At, c.Endpoint = AtAttempt, "a:1" }, AtAttempt, "b:1", Call{}, false},
		{"all traces", func(c *Config) { c.Traces = &Traces{0, 1} }, AtCall, "", Call{Trace: "00"}, true},
	} {
		cfg := abort(1)
		c.edit(&cfg)
		if _, ok := started(t, cfg).Decide(t0, c.at, c.end, c.call); ok != c.want {
			t.Errorf("%s: hit is %t", c.name, ok)
		}
	}
}

// A trace is hit by every gateway on its way or by none, and ranges that part the traces part the hits.
func TestATraceIsHitAlongItsWholePath(t *testing.T) {
	a, b := abort(1), abort(1)
	a.Traces, a.Seed = &Traces{0, 0.3}, 1
	b.Traces, b.Seed = &Traces{0.3, 1}, 2
	first, again, other := started(t, a), started(t, a), started(t, b)
	n := 0
	for i := range 4000 {
		c := Call{Trace: fmt.Sprintf("%032x", i)}
		one, two, three := count(hits(first, t0, 1, c)), count(hits(again, t0, 1, c)), count(hits(other, t0, 1, c))
		if one != two || one+three != 1 {
			t.Fatalf("trace %d: %d %d %d", i, one, two, three)
		}
		n += one
	}
	if n < 1100 || n > 1300 {
		t.Errorf("%d of 4000 traces lie in 30 %%", n)
	}
}

func TestOnlySoManySufferAtOnce(t *testing.T) {
	c := abort(1)
	c.MaxActive = 2
	s := started(t, c)
	e, _ := s.Decide(t0, AtCall, "", Call{})
	if _, ok := s.Decide(t0, AtCall, "", Call{}); !ok {
		t.Error("the second was not hit")
	}
	if _, ok := s.Decide(t0, AtCall, "", Call{}); ok {
		t.Error("the third was hit")
	}
	e.Release()
	if _, ok := s.Decide(t0, AtCall, "", Call{}); !ok {
		t.Error("the one after the end of the first was not hit")
	}
	if st := s.List(t0)[0]; st.Active != 2 || st.Hits != 3 || st.Passed != 1 || st.Eligible != 4 {
		t.Errorf("%+v", st)
	}
}

func TestTooManyErrorsEndIt(t *testing.T) {
	c := abort(1)
	c.Stop = &Stop{ErrorRatio: 0.1}
	s := started(t, c)
	for i := range 19 { // too few for a verdict
		if s.Observe(t0.Add(time.Duration(i)), true) != nil {
			t.Fatal("ended too early")
		}
	}
	if got := s.Observe(t0, true); len(got) != 1 || !s.Idle() {
		t.Fatalf("%v", got)
	}
	if l := s.List(t0); !strings.Contains(l[0].Stopped, "20 of 20 calls failed, more than 10 %") || l[0].Running() {
		t.Errorf("%+v", l[0])
	}

	s = started(t, c)
	for i := range 200 { // less than one in ten is allowed, and what is old does not count
		if s.Observe(t0.Add(time.Duration(i)*100*time.Millisecond), i%11 == 10) != nil {
			t.Fatalf("ended at call %d", i)
		}
	}
}

func TestFaultsAreStartedAndStoppedByName(t *testing.T) {
	s := started(t, abort(1))
	c := abort(1)
	c.Name, c.TTL = "f", time.Minute
	if err := s.Start(t0, c); !errors.Is(err, ErrRunning) {
		t.Error(err)
	}
	if err := s.Stop(t0, "g", ""); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if err := s.Stop(t0, "f", "enough"); err != nil || s.List(t0)[0].Stopped != "enough" {
		t.Error(err, s.List(t0))
	}
	if err := s.Start(t0, c); err != nil {
		t.Error(err)
	}
	for i := range maxRunning - 1 {
		c.Name = fmt.Sprint(i)
		if err := s.Start(t0, c); err != nil {
			t.Fatal(err)
		}
	}
	if c.Name = "more"; !errors.Is(s.Start(t0, c), ErrTooMany) {
		t.Error("there is no end to it")
	}
	for range 3 * maxPast {
		c.Name = "0"
		_ = s.Stop(t0, "0", "")
		_ = s.Start(t0, c)
	}
	if n := len(s.List(t0)); n != maxPast+maxRunning {
		t.Errorf("%d are remembered", n)
	}
	if err := s.Start(t0, Config{}); len(setting.List(err)) != 4 {
		t.Errorf("an empty one: %v", err)
	}
}

func TestTheOldestFaultThatHitsIsTheOne(t *testing.T) {
	s := started(t, Config{Name: "posts", Method: []string{"POST"}, Share: 1, Abort: 500})
	c := abort(1)
	c.Name, c.TTL = "all", time.Minute
	_ = s.Start(t0, c)
	for method, want := range map[string]string{"POST": "posts", "GET": "all"} {
		if e, _ := s.Decide(t0, AtCall, "", Call{Method: method}); e.Fault != want {
			t.Errorf("%s is hit by %q", method, e.Fault)
		}
	}
}

func TestDelaysHaveTheirShape(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		d             Delay
		q10, q50, q99 time.Duration
	}{
		{Delay{Mean: 100 * ms}, 100 * ms, 100 * ms, 100 * ms},
		{Delay{Distribution: Uniform, Min: 100 * ms, Max: 200 * ms}, 110 * ms, 150 * ms, 199 * ms},
		{Delay{Distribution: Normal, Mean: 100 * ms, Deviation: 10 * ms}, 87184 * time.Microsecond, 100 * ms, 123263 * time.Microsecond},
		{Delay{Distribution: LogNormal, Median: 100 * ms, P99: 1000 * ms}, 28130 * time.Microsecond, 100 * ms, 1000 * ms},
		{Delay{Distribution: Exponential, Mean: 100 * ms}, 10536 * time.Microsecond, 69315 * time.Microsecond, 460517 * time.Microsecond},
		{Delay{Distribution: Pareto, Min: 100 * ms, Shape: 2}, 105409 * time.Microsecond, 141421 * time.Microsecond, 1000 * ms},
		{Delay{Distribution: Pareto, Min: 100 * ms, Shape: 2, Max: 200 * ms}, 105409 * time.Microsecond, 141421 * time.Microsecond, 200 * ms},
	} {
		d := c.d.WithDefaults()
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		const n = 50_000
		var all []time.Duration
		for i := range n {
			s := newStream(3, uint64(i))
			s.unit() // the draw of the share
			all = append(all, d.draw(s))
		}
		slices.Sort(all)
		for q, want := range map[float64]time.Duration{0.1: c.q10, 0.5: c.q50, 0.99: c.q99} {
			if got := all[int(q*n)]; math.Abs(float64(got-want)) > 0.04*float64(want) {
				t.Errorf("%s: quantile %v is %s; want %s", d.Distribution, q, got, want)
			}
		}
	}
}

func TestDelaysAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Delay{
			Distribution: rapid.SampledFrom([]Distribution{Fixed, Uniform, Normal, LogNormal, Exponential, Pareto, ""}).Draw(t, "distribution"),
			Mean:         time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "mean")), Deviation: time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "deviation")),
			Median: time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "median")), P99: time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "p99")),
			Min: time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "min")), Shape: rapid.Float64().Draw(t, "shape"), Max: time.Duration(rapid.Int64Range(0, int64(MaxDelay)).Draw(t, "max")),
		}
		if d.Validate() != nil {
			t.Skip()
		}
		d = d.WithDefaults()
		if got := d.draw(newStream(rapid.Uint64().Draw(t, "seed"), 1)); got < 0 || got > d.Max || got > MaxDelay {
			t.Fatalf("%+v: %s", d, got)
		}
	})
}

func TestWhatIsWrongWithAFault(t *testing.T) {
	ok := Config{Name: "f", Share: 0.5, TTL: time.Minute, Abort: 503}
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	for path, edit := range map[string]func(*Config){
		"name":               func(c *Config) { c.Name = "a b" },
		"hypothesis":         func(c *Config) { c.Hypothesis = strings.Repeat("x", 513) },
		"share":              func(c *Config) { c.Share = math.NaN() },
		"method":             func(c *Config) { c.Method = []string{"get"} },
		"headers":            func(c *Config) { c.Headers = map[string]string{"a b": "*"} },
		"traces":             func(c *Config) { c.Traces = &Traces{0.5, 0.5} },
		"at":                 func(c *Config) { c.At = "x" },
		"endpoint":           func(c *Config) { c.Endpoint = "a:1" },
		"delay.mean":         func(c *Config) { c.Delay = &Delay{} },
		"abort":              func(c *Config) { c.Abort = 200 },
		"reset":              func(c *Config) { c.Abort, c.Reset = 0, "x" },
		"reset_after":        func(c *Config) { c.ResetAfter = 5 },
		"bytes_per_second":   func(c *Config) { c.Abort, c.BytesPerSecond = 0, -1 },
		"":                   func(c *Config) { c.Blackhole = true },
		"ttl":                func(c *Config) { c.TTL = 25 * time.Hour },
		"max_active":         func(c *Config) { c.MaxActive = -1 },
		"stop.error_ratio":   func(c *Config) { c.Stop = &Stop{} },
		"stop.min_calls":     func(c *Config) { c.Stop = &Stop{0.1, -1} },
		"delay.shape":        func(c *Config) { c.Delay = &Delay{Distribution: Pareto, Min: 1} },
		"delay.p99":          func(c *Config) { c.Delay = &Delay{Distribution: LogNormal, Median: 1} },
		"delay.max":          func(c *Config) { c.Delay = &Delay{Distribution: Uniform} },
		"delay.distribution": func(c *Config) { c.Delay = &Delay{Distribution: "x"} },
	} {
		c := ok
		edit(&c)
		faults := setting.List(c.Validate())
		var one *setting.Error
		if len(faults) != 1 || !errors.As(faults[0], &one) || one.Path != path {
			t.Errorf("%q: %v", path, faults)
		}
	}
}

// The file form and the Go form are one.
func FuzzConfig(f *testing.F) {
	f.Add("{name: a, share: 5%, ttl: 1m, delay: 250ms}")
	f.Add("{name: a, share: 0.1, ttl: 1m, delay: {distribution: pareto, min: 1ms, shape: 1.5}, headers: {x-a: '*'}, stop: {error_ratio: 5%}}")
	f.Add("{name: a, share: 1, ttl: 1h, at: attempt, endpoint: 'a:1', reset: mid_body, traces: {from: 0, to: 10%}, seed: 4}")
	f.Fuzz(func(t *testing.T, text string) {
		var c Config
		if conf.Decode("fuzz", []byte(text), &c) != nil || c.Validate() != nil {
			return
		}
		if err := c.WithDefaults().Validate(); err != nil {
			t.Fatalf("%q: with its defaults: %v", text, err)
		}
		var s Set
		if err := s.Start(t0, c); err != nil {
			t.Fatal(err)
		}
		if e, ok := s.Decide(t0.Add(c.TTL), c.WithDefaults().At, c.Endpoint, Call{}); ok {
			t.Fatalf("%q hits after its end: %+v", text, e)
		}
	})
}

func TestADelayAloneIsAFixedOne(t *testing.T) {
	var c Config
	if err := conf.Decode("test", []byte("{name: a, share: 5%, ttl: 1m, delay: 250ms}"), &c); err != nil || c.Delay.Mean != 250*time.Millisecond {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestASetMayBeUsedByMany(t *testing.T) {
	var s Set
	var run sync.WaitGroup
	for i := range 4 {
		run.Go(func() {
			c := abort(0.5)
			c.Name, c.TTL, c.Stop = fmt.Sprint(i), time.Second, &Stop{ErrorRatio: 0.9}
			for j := range 200 {
				now := t0.Add(time.Duration(j) * 20 * time.Millisecond)
				_ = s.Start(now, c)
				if e, ok := s.Decide(now, AtCall, "", Call{}); ok {
					e.Release()
				}
				s.Observe(now, j%2 == 0)
				s.List(now)
				if j%50 == 0 {
					_ = s.Stop(now, c.Name, "")
				}
			}
		})
	}
	run.Wait()
	for _, st := range s.List(t0.Add(time.Hour)) {
		if st.Active != 0 || st.Running() {
			t.Errorf("%+v", st)
		}
	}
}

func TestDecidingDoesNotAllocate(t *testing.T) {
	c := Config{Share: 0.5, Delay: &Delay{Distribution: LogNormal, Median: time.Second, P99: 2 * time.Second}, Headers: map[string]string{"X-A": "*"}, Traces: &Traces{0, 1}}
	s := started(t, c)
	h := http.Header{"X-A": {"1"}}
	if n := testing.AllocsPerRun(100, func() {
		e, _ := s.Decide(t0, AtCall, "", Call{Method: "GET", Header: h, Trace: "0123"})
		e.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
