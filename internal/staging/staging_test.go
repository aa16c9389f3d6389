package staging_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/internal/judge"
	"github.com/longpole/longpole/internal/staging"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type policy struct {
	Timeout time.Duration `yaml:"timeout"`
	Ratio   float64       `yaml:"ratio"`
}

func hash(t *testing.T, route, version string, p policy) string {
	t.Helper()
	h, err := staging.Hash(route, version, p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAHashNamesRouteAndContent(t *testing.T) {
	base := hash(t, "orders", "", policy{Timeout: time.Second})
	if again := hash(t, "orders", "", policy{Timeout: 1000 * time.Millisecond}); again != base {
		t.Error("equal contents have unequal hashes")
	}
	for name, other := range map[string]string{
		"route":   hash(t, "carts", "", policy{Timeout: time.Second}),
		"policy":  hash(t, "orders", "", policy{Timeout: time.Second, Ratio: 0.1}),
		"version": hash(t, "orders", "v2", policy{}),
	} {
		if other == base {
			t.Errorf("another %s has the same hash", name)
		}
	}
	if hash(t, "orders", "v2", policy{}) != hash(t, "orders", "v2", policy{Timeout: time.Hour}) {
		t.Error("the hash of a version depends on a policy that it does not change")
	}
}

func record(edit func(*staging.Record)) staging.Record {
	r := staging.Record{
		Hash: "sha256:" + strings.Repeat("ab", 32), Environment: "staging", Rollout: "r1", Route: "orders", Phase: staging.Promoted,
		Verdict: judge.Improved, At: noon, Before: staging.Latency{P50: 10, P95: 50, P99: 100}, After: staging.Latency{P50: 10, P95: 40, P99: 50},
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func TestOnlyWhatWasPromotedOnEvidenceIsVerified(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*staging.Record)
		want bool
	}{
		"improved":       {nil, true},
		"no worse":       {func(r *staging.Record) { r.Verdict = judge.NoWorse }, true},
		"by hand":        {func(r *staging.Record) { r.Verdict = judge.Inconclusive }, false},
		"rolled back":    {func(r *staging.Record) { r.Phase, r.Verdict = "rolled_back", judge.Worse }, false},
		"aborted":        {func(r *staging.Record) { r.Phase = "aborted" }, false},
		"undone":         {func(r *staging.Record) { r.Undone = noon.Add(time.Hour) }, false},
		"of production":  {func(r *staging.Record) { r.Environment = "production" }, false},
		"another change": {func(r *staging.Record) { r.Hash = "sha256:" + strings.Repeat("cd", 32) }, false},
	} {
		if _, ok := staging.Find([]staging.Record{record(c.edit)}, "staging", record(nil).Hash); ok != c.want {
			t.Errorf("%s: found %v, want %v", name, ok, c.want)
		}
	}
	newer := record(func(r *staging.Record) { r.Rollout, r.At = "r2", noon.Add(time.Hour) })
	if found, _ := staging.Find([]staging.Record{newer, record(nil)}, "staging", newer.Hash); found.Rollout != "r2" {
		t.Errorf("found %s, want the newest, r2", found.Rollout)
	}
}

func TestARecordSurvivesItsFile(t *testing.T) {
	text, err := json.Marshal(record(func(r *staging.Record) {
		r.Workload = &staging.Workload{Calls: 7}
		r.Change = []byte(`{"route":"orders"}`)
	}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := staging.ParseRecord(text)
	if err != nil || r.Workload.Calls != 7 || !r.Verified() || string(r.Change) != `{"route":"orders"}` {
		t.Errorf("%v: %+v", err, r)
	}
}

func TestWhatIsNoRecordIsRefused(t *testing.T) {
	good, _ := json.Marshal(record(nil)) //nolint:errchkjson // it has no part that could not be written
	for name, text := range map[string]string{
		"no JSON":        "hello",
		"empty":          "",
		"two":            string(good) + string(good),
		"no hash":        strings.Replace(string(good), "sha256:", "md5:", 1),
		"no environment": strings.Replace(string(good), `"environment":"staging"`, `"environment":"a b"`, 1),
		"no route":       strings.Replace(string(good), `"route":"orders"`, `"route":""`, 1),
		"no time":        strings.Replace(string(good), `"at":"2026-03-01T12:00:00Z"`, `"at":"0001-01-01T00:00:00Z"`, 1),
		"too long":       strings.Repeat(" ", staging.MaxRecordBytes) + string(good),
	} {
		if _, err := staging.ParseRecord([]byte(text)); !errors.Is(err, staging.ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	good, _ := json.Marshal(record(nil)) //nolint:errchkjson // it has no part that could not be written
	f.Add(good)
	f.Add([]byte(`{"hash":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := staging.ParseRecord(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Skip() // raw parts that are no JSON cannot be read, and so not be written
		}
		if again, err := staging.ParseRecord(text); err != nil || again.Hash != r.Hash {
			t.Errorf("%v: what was read is not written as it was: %s", err, text)
		}
	})
}

// production is the workload that others are compared with.
func production() staging.Workload {
	route := func(calls uint64, hit float64) staging.RouteLoad {
		return staging.RouteLoad{
			Calls: calls, Latency: staging.Latency{P50: 10, P95: 40, P99: 90}, RequestBytes: staging.Mix{"256": 1}, ResponseBytes: staging.Mix{"1024": 0.8, "4096": 0.2},
			FanOut: map[string]float64{"": 1.02, "db": 3}, CacheHitRatio: hit, RetriesPerCall: 0.01, Settings: map[string]string{"timeout": "2s", "retry.max_attempts": "3"},
		}
	}
	return staging.Workload{
		Environment: "production", Version: "v1", Calls: 10_000, Arrivals: staging.Arrivals{PerSecond: 100, Dispersion: 3, PeakToMean: 1.5, Windows: 360},
		Routes:    map[string]staging.RouteLoad{"orders": route(7000, 0.2), "catalogue": route(3000, 0.8)},
		Segments:  map[string]staging.Latency{"a > database": {P50: 5, P99: 60}, "a > network": {P50: 1, P99: 3}},
		Endpoints: map[string]int{"shop": 3}, Edges: []string{"route orders > shop", "route catalogue > shop"}, Settings: map[string]string{"limits.connections": "10000"},
	}
}

func TestAnEnvironmentIsFaithfulToItself(t *testing.T) {
	s := staging.Fidelity(production(), production(), 70)
	if s.Value != 100 || s.Weak || len(s.Mismatches) > 0 || len(s.Unmeasured) > 0 {
		t.Errorf("%+v", s)
	}
	if text := s.String(); text != "fidelity 100 of 100" {
		t.Error(text)
	}
}

// edited is production with one thing that differs.
func edited(edit func(*staging.Workload)) staging.Workload {
	w := production()
	edit(&w)
	return w
}

func onOrders(edit func(*staging.RouteLoad)) func(*staging.Workload) {
	return func(w *staging.Workload) {
		r := w.Routes["orders"]
		edit(&r)
		w.Routes["orders"] = r
	}
}

func TestEveryMismatchIsNamedWithBothValues(t *testing.T) {
	for aspect, c := range map[string]struct {
		edit            func(*staging.Workload)
		of, here, there string
	}{
		"route mix":       {func(w *staging.Workload) { delete(w.Routes, "catalogue") }, "orders", "100 %", "70 %"},
		"arrival rate":    {func(w *staging.Workload) { w.Arrivals.PerSecond = 10 }, "", "10 calls/s", "100 calls/s"},
		"arrival bursts":  {func(w *staging.Workload) { w.Arrivals.Dispersion = 1 }, "", "1 (index of dispersion)", "3 (index of dispersion)"},
		"peak to mean":    {func(w *staging.Workload) { w.Arrivals.PeakToMean = 3 }, "", "3 (peak / mean)", "1.5 (peak / mean)"},
		"payload sizes":   {onOrders(func(r *staging.RouteLoad) { r.ResponseBytes = staging.Mix{"65536": 1} }), "orders", "100 % up to 65536 bytes", "80 % up to 1024 bytes"},
		"fan-out":         {onOrders(func(r *staging.RouteLoad) { r.FanOut = map[string]float64{"": 1.02, "db": 12} }), "db", "12 per call", "3 per call"},
		"segment latency": {func(w *staging.Workload) { w.Segments["a > database"] = staging.Latency{P50: 1, P99: 6} }, "a > database", "p50 1, p99 6 ms", "p50 5, p99 60 ms"},
		"cache hit ratio": {onOrders(func(r *staging.RouteLoad) { r.CacheHitRatio = 0.9 }), "orders", "90 %", "20 %"},
		"retries":         {onOrders(func(r *staging.RouteLoad) { r.RetriesPerCall = 0.2 }), "orders", "20 %", "1 %"},
		"settings":        {onOrders(func(r *staging.RouteLoad) { r.Settings = map[string]string{"timeout": "9s", "retry.max_attempts": "3"} }), "routes.orders.timeout", "9s", "2s"},
		"version":         {func(w *staging.Workload) { w.Version = "v2" }, "", "v2", "v1"},
		"topology":        {func(w *staging.Workload) { w.Edges = w.Edges[:1] }, "route catalogue > shop", "1 edges", "2 edges"},
		"instances":       {func(w *staging.Workload) { w.Endpoints["shop"] = 1 }, "shop", "1", "3"},
	} {
		s := staging.Fidelity(edited(c.edit), production(), 70)
		if s.Value >= 100 || len(s.Mismatches) == 0 {
			t.Errorf("%s: nothing is found: %+v", aspect, s)
			continue
		}
		m := s.Mismatches[0]
		if m.Aspect != aspect || m.Of != c.of || m.Staging != c.here || m.Production != c.there || m.Points <= 0 || m.Weight <= 0 {
			t.Errorf("%s: the first mismatch is %+v", aspect, m)
		}
	}
}

func TestAnIdleStagingIsWeak(t *testing.T) {
	idle := staging.Workload{Version: "v1", Endpoints: map[string]int{"shop": 1}}
	s := staging.Fidelity(idle, production(), 70)
	if !s.Weak || s.Value > 30 {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(s.String(), "(weak)") {
		t.Error(s)
	}
}

func TestWhatNeitherMeasuredDoesNotCount(t *testing.T) {
	bare := func() staging.Workload {
		w := production()
		w.Segments, w.Arrivals = nil, staging.Arrivals{}
		for name, r := range w.Routes {
			r.RequestBytes, r.ResponseBytes = nil, nil
			w.Routes[name] = r
		}
		return w
	}
	s := staging.Fidelity(bare(), bare(), 70)
	if s.Value != 100 || strings.Join(s.Unmeasured, ", ") != "arrival rate, payload sizes, arrival bursts, peak to mean" {
		t.Errorf("%+v", s)
	}
}

func TestJensenShannon(t *testing.T) {
	for _, c := range []struct {
		a, b staging.Mix
		want float64
	}{
		{staging.Mix{"x": 1}, staging.Mix{"x": 1}, 0},
		{staging.Mix{"x": 1}, staging.Mix{"y": 1}, 1},
		{staging.Mix{"x": 0.5, "y": 0.5}, staging.Mix{"x": 1}, 0.3113},
	} {
		if got := staging.JensenShannon(c.a, c.b); math.Abs(got-c.want) > 1e-4 {
			t.Errorf("%v, %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) staging.Mix {
			m, sum := staging.Mix{}, 0.0
			for _, name := range []string{"a", "b", "c", "d"} {
				m[name] = rapid.Float64Range(0, 1).Draw(t, label+name)
				sum += m[name]
			}
			if sum == 0 {
				m["a"], sum = 1, 1
			}
			for name := range m {
				m[name] /= sum
			}
			return m
		}
		a, b := draw("a"), draw("b")
		d := staging.JensenShannon(a, b)
		if d < 0 || d > 1 || math.Abs(d-staging.JensenShannon(b, a)) > 1e-9 {
			t.Errorf("%v, %v: %v", a, b, d)
		}
	})
}

func TestAClockTellsBurstsFromSteadyCalls(t *testing.T) {
	tell := func(counts ...uint64) staging.Arrivals {
		var c staging.Clock
		total := uint64(0)
		c.Observe(noon, 0)
		for i, n := range counts {
			total += n
			c.Observe(noon.Add(time.Duration(i+1)*10*time.Second), total)
		}
		return c.Arrivals()
	}
	if a := tell(); a != (staging.Arrivals{}) {
		t.Errorf("nothing: %+v", a)
	}
	if a := tell(100, 100, 100, 100); a.PerSecond != 10 || a.Dispersion != 0 || a.PeakToMean != 1 || a.Windows != 4 {
		t.Errorf("steady: %+v", a)
	}
	if a := tell(0, 200, 0, 200); a.PerSecond != 10 || a.Dispersion < 100 || a.PeakToMean != 2 {
		t.Errorf("in bursts: %+v", a)
	}
	many := make([]uint64, 1000)
	for i := range many {
		many[i] = 50
	}
	if a := tell(many...); a.Windows != 360 {
		t.Errorf("an hour has %d windows", a.Windows)
	}
}

func TestAClockSurvivesATotalThatBeginsAnew(t *testing.T) {
	var c staging.Clock
	for i, total := range []uint64{0, 100, 200, 5, 105} {
		c.Observe(noon.Add(time.Duration(i)*10*time.Second), total)
	}
	if a := c.Arrivals(); a.PerSecond != 10 || a.Windows != 3 {
		t.Errorf("%+v", a)
	}
}

func TestTransferLearnsWhatIsLeftOfAnEffect(t *testing.T) {
	change := func(hash byte, environment, class string, p99 float64) staging.Record {
		return record(func(r *staging.Record) {
			r.Hash = "sha256:" + strings.Repeat(string(hash), 64)
			r.Environment, r.Class = environment, class
			r.Before, r.After = staging.Latency{P99: 100}, staging.Latency{P99: p99}
		})
	}
	half := 100 * math.Exp(math.Log(0.25)/2) // half of the effect on the logarithm's scale
	there := []staging.Record{change('a', "staging", "database", 25), change('b', "staging", "", 50), change('c', "staging", "", 50)}
	here := []staging.Record{change('a', "production", "", half), change('b', "production", "", 50)}
	transfer := staging.Compare(there, here)
	if len(transfer.Changes) != 2 {
		t.Fatalf("%d changes were in both, want 2", len(transfer.Changes))
	}
	want := map[string]float64{"database": 0.5, "other": 1}
	for _, f := range transfer.Factors {
		if w, ok := want[f.Class]; ok && (math.Abs(f.Value-w) > 1e-9 || f.Changes != 1) {
			t.Errorf("%+v, want %v of one change", f, w)
		}
	}
	if transfer.Factors[0].Class != "all" || transfer.Factors[0].Value <= 0.5 || transfer.Factors[0].Value >= 1 {
		t.Errorf("%+v", transfer.Factors[0])
	}
	if e := transfer.Expect("database", staging.Effect{P99: -1}); math.Abs(e.P99+0.5) > 1e-9 {
		t.Errorf("a database change is expected to do %v, want -0.5", e.P99)
	}
	none := staging.Transfer{}
	if e := none.Expect("database", staging.Effect{P99: -1}); e.P99 != -1 {
		t.Errorf("without anything learned %v is expected, want -1", e.P99)
	}
}

func TestSettingsTakesADocumentApart(t *testing.T) {
	got := staging.Settings([]byte(`{"timeout":"2s","retry":{"off":true,"hedge":null},"list":[{"a":1},"x"]}`))
	want := map[string]string{"timeout": "2s", "retry.off": "true", "list[0].a": "1", "list[1]": "x"}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for path, value := range want {
		if got[path] != value {
			t.Errorf("%s is %q, want %q", path, got[path], value)
		}
	}
	if none := staging.Settings([]byte("{")); len(none) != 0 {
		t.Errorf("%v", none)
	}
}

func TestConfigFaultsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		config staging.Config
		want   string // "" = fine
	}{
		"none":       {staging.Config{}, ""},
		"first":      {staging.Config{Name: "staging"}, ""},
		"folder":     {staging.Config{Name: "production", Requires: "staging", Records: "records"}, ""},
		"url":        {staging.Config{Name: "production", Requires: "staging", URL: "https://staging:9901", TokenEnv: "STAGING_TOKEN"}, ""},
		"no name":    {staging.Config{Requires: "staging", Records: "records"}, "name"},
		"no source":  {staging.Config{Name: "production", Requires: "staging"}, "requires"},
		"both":       {staging.Config{Name: "production", Requires: "staging", Records: "x", URL: "http://a"}, "requires"},
		"itself":     {staging.Config{Name: "a", Requires: "a", Records: "x"}, "requires"},
		"no URL":     {staging.Config{Name: "production", Requires: "staging", URL: "staging:9901"}, "url"},
		"patience":   {staging.Config{Name: "a", Patience: time.Hour}, "patience"},
		"least":      {staging.Config{Name: "a", Least: 101}, "least"},
		"a variable": {staging.Config{Name: "production", Requires: "staging", URL: "http://a", TokenEnv: "s3cret!"}, "token_env"},
	} {
		err := c.config.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want+":") {
			t.Errorf("%s: %v, want a fault of %q", name, err, c.want)
		}
		if d := c.config.WithDefaults(); c.want == "" && d.Validate() != nil {
			t.Errorf("%s: with its defaults it has faults: %v", name, d.Validate())
		}
	}
	if err := (staging.Config{Name: "production", Requires: "staging", URL: "http://a", TokenEnv: "s3cret!"}).Validate(); strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a token in the wrong place is shown: %v", err)
	}
}
