package scale

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

// steady feeds a Decider with a constant load for a minute and a half, in which every call takes the same time, and returns
// the time after that.
func steady(d *Decider, perSecond int, took time.Duration, s Sample) time.Time {
	var calls, tries stats.Histogram
	now := simBegin
	for range 90 {
		for range perSecond {
			calls.Record(took)
			tries.Record(took)
		}
		now = now.Add(time.Second)
		s.Arrivals += uint64(perSecond)
		s.Calls, s.Attempts = calls.Snapshot(), tries.Snapshot()
		d.Observe(now, s)
		d.Recommend(now)
	}
	return now
}

func TestDesiredReplicas(t *testing.T) {
	base := Config{Name: "orders", Max: 20, Latency: 250 * time.Millisecond}
	change := func(f func(*Config)) Config { c := base; f(&c); return c }
	for name, c := range map[string]struct {
		config Config
		rate   int
		sample Sample
		want   int
		bound  Bound
		reason string
	}{
		"load, by Little's law":               {base, 200, Sample{Ready: 2, Limit: 8}, 4, ByLoad, "4 replicas: 200 calls/s"}, // 200 * 0.05 / (4 * 0.7) = 3.6
		"starting ones count":                 {base, 200, Sample{Ready: 2, Starting: 2, Limit: 8}, 4, ByLoad, "4 replicas"},
		"CPU asks for more":                   {base, 200, Sample{Ready: 4, Limit: 16, CPU: 1}, 5, ByCPU, "replicas use 100 % of their CPU on average, 80 % would be fine"},
		"CPU within its tolerance":            {base, 200, Sample{Ready: 4, Limit: 16, CPU: 0.87}, 4, ByLoad, ""},
		"memory asks for more":                {base, 200, Sample{Ready: 4, Limit: 16, Memory: 0.99}, 5, ByMemory, "of their memory"},
		"idle CPU never asks for fewer":       {base, 200, Sample{Ready: 4, Limit: 16, CPU: 0.01, Memory: 0.01}, 4, ByLoad, ""},
		"at most max":                         {change(func(c *Config) { c.Max = 3 }), 200, Sample{Ready: 2, Limit: 8}, 3, ByMax, "the most that is allowed"},
		"at least min":                        {change(func(c *Config) { c.Min = 6 }), 200, Sample{Ready: 4, Limit: 16}, 6, ByMin, "the least that is allowed"},
		"more than max is taken back at once": {change(func(c *Config) { c.Max = 3 }), 200, Sample{Ready: 8, Limit: 32}, 3, ByMax, ""},
		"fewer would do, but not yet":         {base, 200, Sample{Ready: 10, Limit: 40}, 10, ByHold, "have not for 5m0s"},
		"fewer would do, for long enough":     {change(func(c *Config) { c.ScaleInAfter = 20 * time.Second }), 200, Sample{Ready: 10, Limit: 40}, 4, ByLoad, ""},
		"unknown without a limit":             {base, 200, Sample{Ready: 7}, 7, ByNothing, "it stays so"},
		"unknown without calls":               {base, 0, Sample{Ready: 7, Limit: 28}, 7, ByNothing, ""},
	} {
		if err := c.config.Validate(); err != nil {
			t.Fatal(name, err)
		}
		d := New(c.config)
		now := steady(d, c.rate, 50*time.Millisecond, c.sample)
		r := d.Recommend(now)
		if r.Desired != c.want || r.Bound != c.bound || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %d by %s (%s); want %d by %s (%s)", name, r.Desired, r.Bound, r.Reason, c.want, c.bound, c.reason)
		}
		if r.Active != (c.rate > 0) {
			t.Errorf("%s: active is %t", name, r.Active)
		}
	}
}

// TestNoReplicaLeavesThatTheQuantileNeeds has an objective so close to the time of a call that the load formula alone
// would break it: 3 replicas with a utilization of 95 % could carry the load, but calls would wait.
func TestNoReplicaLeavesThatTheQuantileNeeds(t *testing.T) {
	c := Config{Name: "orders", Max: 20, Latency: 60 * time.Millisecond, Utilization: 0.95, ScaleInAfter: 20 * time.Second}
	d := New(c)
	now := steady(d, 200, 50*time.Millisecond, Sample{Ready: 10, Limit: 40})
	r := d.Recommend(now)
	if r.Bound != ByLatency || r.Desired <= 3 || r.Desired >= 10 {
		t.Fatalf("%d by %s: %s", r.Desired, r.Bound, r.Reason)
	}
	if p, ok := d.whatIf(now, r.Desired, r.PerSecond); !ok || p > c.Latency {
		t.Errorf("with the desired %d it would be %v", r.Desired, p)
	}
	if p, ok := d.whatIf(now, r.Desired-1, r.PerSecond); ok && p <= c.Latency {
		t.Errorf("with one fewer it would be %v: they are too many", p)
	}
	if !strings.Contains(r.Reason, "p99 would be") {
		t.Error(r.Reason)
	}
}

func TestCallsThatWaitForPermitsAskForMore(t *testing.T) {
	d := New(Config{Name: "orders", Max: 20, Latency: 250 * time.Millisecond})
	var calls, tries stats.Histogram
	now, arrived := simBegin, uint64(0)
	var r Recommendation
	for second := range 120 {
		for i := range 100 {
			wait := time.Duration(0)
			if i%20 == 0 && second > 30 { // in bursts that the mean load does not show
				wait = 200 * time.Millisecond
			}
			calls.Record(50*time.Millisecond + wait)
			tries.Record(50 * time.Millisecond)
			arrived++
		}
		now = now.Add(time.Second)
		d.Observe(now, Sample{Arrivals: arrived, Ready: 3, Limit: 12, Calls: calls.Snapshot(), Attempts: tries.Snapshot()})
		r = d.Recommend(now)
	}
	if r.Desired != 4 || r.Bound != ByQueue || !strings.Contains(r.Reason, "one call in 100 waits") {
		t.Errorf("%d by %s: %s", r.Desired, r.Bound, r.Reason)
	}
}

func TestErlangC(t *testing.T) {
	for _, c := range []struct{ slots, load, want float64 }{
		{1, 0.5, 0.5},        // M/M/1: the utilisation
		{2, 1, 1.0 / 3},      // by hand
		{10, 7, 0.2217},      // from tables
		{100, 80, 0.0196},    //
		{4, 0, 0},            //
		{1, 0.999999, 0.999}, //
	} {
		if got := erlangC(c.slots, c.load); math.Abs(got-c.want) > 0.001 {
			t.Errorf("C(%v, %v) = %v, want %v", c.slots, c.load, got, c.want)
		}
	}
}

// TestWaitOfOneSlotIsThatOfTheTextbook: the sojourn above wait in M/M/1 is rho*exp(-(mu-lambda)t).
func TestWaitOfOneSlotIsThatOfTheTextbook(t *testing.T) {
	r := replica{slots: 1, service: 100 * time.Millisecond, spread: 1}
	got, ok := r.wait(8, 1, 0.99)
	want := math.Log(0.8/0.01) / (10 - 8)
	if !ok || math.Abs(got.Seconds()-want) > 1e-6 {
		t.Errorf("%v %t, want %v s", got, ok, want)
	}
	if _, ok := r.wait(10, 1, 0.99); ok {
		t.Error("a full slot keeps up")
	}
	if _, ok := r.wait(1, 0, 0.99); ok {
		t.Error("no replica keeps up")
	}
}

func TestMoreReplicasNeverWaitLonger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := replica{
			slots:   rapid.Float64Range(1, 200).Draw(t, "slots"),
			service: time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Second)).Draw(t, "service")),
			spread:  rapid.Float64Range(0, 10).Draw(t, "spread"),
		}
		perSecond := rapid.Float64Range(0.1, 10_000).Draw(t, "rate")
		n := rapid.IntRange(1, 500).Draw(t, "n")
		few, keepsUp := r.wait(perSecond, n, 0.99)
		more, still := r.wait(perSecond, n+1, 0.99)
		if keepsUp && (!still || more > few) {
			t.Fatalf("%v with %d, %v with one more", few, n, more)
		}
	})
}

func TestForecast(t *testing.T) {
	run := func(rate func(second int) int, seconds int) (float64, string) {
		var a arrivals
		now, total := simBegin, uint64(0)
		for i := range seconds {
			a.observe(now, total)
			total += uint64(rate(i))
			now = now.Add(time.Second)
		}
		a.observe(now, total)
		return a.forecast(now, 30*time.Second)
	}
	for name, c := range map[string]struct {
		rate    func(int) int
		seconds int
		want    float64
		rule    string
	}{
		"flat":                                {func(int) int { return 50 }, 120, 50, "average"},
		"flat and young":                      {func(int) int { return 50 }, 3, 50, "average"},
		"ramp of 1/s each second, 30 s ahead": {func(i int) int { return 100 + i }, 120, 249.5, "trend"},
		"step is no trend":                    {func(i int) int { return 50 + 50*min(i/90, 1) }, 120, 100, "fastest"},
		"falling":                             {func(i int) int { return 200 - i }, 120, 137.5, "fastest"},
		"a burst counts by its six seconds":   {func(i int) int { return 10 + 60*max(0, 1-max(i-100, 100-i)) }, 120, 20, "fastest"},
	} {
		got, rule := run(c.rate, c.seconds)
		if math.Abs(got-c.want) > 0.06*c.want || !strings.HasPrefix(rule, c.rule) {
			t.Errorf("%s: %v by %s, want %v by %s", name, got, rule, c.want, c.rule)
		}
	}
}

func TestCountsThatBeganAnewAreNotNegative(t *testing.T) {
	var a arrivals
	a.observe(simBegin, 1000)
	a.observe(simBegin.Add(time.Second), 1010)
	a.observe(simBegin.Add(2*time.Second), 5)
	if a.average < 0 || a.average > 20 {
		t.Error(a.average)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := Config{Name: "a b", Min: -1, Latency: 1, Quantile: 2, Utilization: 1, Start: 1, ScaleInAfter: 1, CPU: 2, Memory: 3}.Validate()
	var got []string
	for _, e := range setting.List(err) {
		got = append(got, path(t, e))
	}
	if want := "name min max latency quantile utilization start scale_in_after cpu memory"; strings.Join(got, " ") != want {
		t.Errorf("%v\nwant %v", got, want)
	}
	if c := (Config{Name: "a"}).WithDefaults(); c.Routes[0] != "a" || c.Min != 1 || c.Quantile != 0.99 || c.Start != 30*time.Second {
		t.Errorf("%+v", c)
	}
}

// path is that of one fault.
func path(t *testing.T, err error) string {
	t.Helper()
	fault, ok := errors.AsType[*setting.Error](err)
	if !ok {
		t.Fatalf("%v is no fault of a setting", err)
	}
	return fault.Path
}
