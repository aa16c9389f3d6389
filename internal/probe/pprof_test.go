package probe

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	httppprof "net/http/pprof"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/longpole/longpole/internal/evidence"
)

// made is a CPU profile with the given samples for each stack, innermost function first.
func made(stacks map[string]int64) []byte {
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10_000_000, DurationNanos: 10_000_000_000, TimeNanos: noon.UnixNano(),
	}
	byName := map[string]*profile.Location{}
	for s, n := range stacks {
		sample := &profile.Sample{Value: []int64{n, n * 10_000_000}}
		for name := range strings.SplitSeq(s, ";") {
			loc := byName[name]
			if loc == nil {
				id := uint64(len(byName) + 1)
				f := &profile.Function{ID: id, Name: name}
				loc = &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
				byName[name] = loc
				p.Function, p.Location = append(p.Function, f), append(p.Location, loc)
			}
			sample.Location = append(sample.Location, loc)
		}
		p.Sample = append(p.Sample, sample)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func parsed(t testing.TB, stacks map[string]int64) evidence.Profile {
	t.Helper()
	p, err := ParseProfile(made(stacks), "cpu", "shop", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestASlowFunctionStandsOutOfAHealthyProfile: shares are compared, so a profile of twice the load is no change.
func TestASlowFunctionStandsOutOfAHealthyProfile(t *testing.T) {
	healthy := parsed(t, map[string]int64{"parse;handle;serve": 300, "render;handle;serve": 300, "gc": 100})
	suspect := parsed(t, map[string]int64{"parse;handle;serve": 300, "render;handle;serve": 300, "gc": 100, "backtrack;match;handle;serve": 700})
	d := evidence.DiffProfiles(suspect, healthy)
	if len(d.Changes) == 0 || d.Changes[0].Name != "backtrack" || d.Changes[0].By != "flat" || d.Changes[0].Suspect != 0.5 || d.Changes[0].Confidence < 0.999 {
		t.Errorf("%+v", d.Changes)
	}
	if d.SuspectRate/d.HealthyRate != 2 {
		t.Errorf("busy cores %v and %v", d.SuspectRate/1e9, d.HealthyRate/1e9)
	}
	twice := parsed(t, map[string]int64{"parse;handle;serve": 600, "render;handle;serve": 610, "gc": 190})
	if d := evidence.DiffProfiles(twice, healthy); len(d.Changes) != 0 {
		t.Errorf("twice the load: %+v", d.Changes)
	}
	few := parsed(t, map[string]int64{"parse": 20})
	if d := evidence.DiffProfiles(few, healthy); len(d.Changes) != 0 || len(d.Gaps) != 1 {
		t.Errorf("20 samples: %+v", d)
	}
}

func TestAFlameGraphAddsUp(t *testing.T) {
	p := parsed(t, map[string]int64{"a;main": 60, "b;a;main": 30, "c;b;a;main": 9, "d;main": 1, "main": 2, "a;a;main": 10})
	root := p.Tree(0.05)
	total, _ := p.Total()
	var check func(f *evidence.Frame)
	check = func(f *evidence.Frame) {
		sum := f.Self
		for _, c := range f.Children {
			sum += c.Value
			check(c)
		}
		if sum != f.Value {
			t.Errorf("%s: self and children are %v of %v", f.Name, sum, f.Value)
		}
	}
	check(root)
	if root.Value != total || len(root.Children) != 1 || root.Children[0].Name != "main" || root.Children[0].Children[0].Name != "a" || root.Children[0].Children[1].Name != "…" {
		t.Errorf("%+v", root.Children[0])
	}
	f := p.Functions()
	if f[0].Name != "a" || f[0].Flat != 70*1e7 || f[0].Cum != 109*1e7 || f[0].CumShare < 0.97 {
		t.Errorf("recursion counts once: %+v", f[0])
	}
	if p.Service != "shop" || !p.From.Equal(noon) || p.Since != 10*time.Second || !p.To.Equal(noon.Add(10*time.Second)) {
		t.Errorf("of %s from %v to %v", p.Service, p.From, p.To)
	}
}

// TestProfilesOfARealProcess fetches each kind from net/http/pprof.
func TestProfilesOfARealProcess(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", httppprof.Index)
	mux.HandleFunc("/debug/pprof/profile", httppprof.Profile)
	s := httptest.NewServer(mux)
	defer s.Close()
	p, err := NewProfiles(ProfilesConfig{Service: "shop", URL: s.URL + "/debug/pprof/", Seconds: 1, Timeout: time.Minute}, s.Client())
	if err != nil {
		t.Fatal(err)
	}
	for kind := range kinds {
		out, err := p.Fetch(t.Context(), kind)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if out.Kind != kind || out.Service != "shop" || out.From.IsZero() || out.Unit == "" {
			t.Errorf("%s: %+v", kind, out)
		}
		if kind == "goroutine" {
			if total, _ := out.Total(); total < 2 {
				t.Errorf("%v goroutines", total)
			}
		}
	}
	if _, err := p.Fetch(t.Context(), "cpu"); !errors.Is(err, ErrTooSoon) {
		t.Errorf("at once again: %v", err)
	}
	if _, err := p.Fetch(t.Context(), "symbol"); !errors.Is(err, ErrProfile) {
		t.Errorf("a kind that is none: %v", err)
	}
}

func TestProfilesAreBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	io.Copy(z, io.LimitReader(zeros{}, 4<<20))
	z.Close()
	body := bomb.Bytes()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/busy/heap") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write(body)
	}))
	defer s.Close()
	fetch := func(path string) (*Profiles, error) {
		p, err := NewProfiles(ProfilesConfig{URL: s.URL + path, MaxSize: 64 << 10, Timeout: time.Minute}, s.Client())
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Fetch(t.Context(), "heap")
		return p, err
	}
	if _, err := fetch(""); !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), "unpacks") {
		t.Errorf("a bomb: %v", err)
	}
	body = make([]byte, 65<<10)
	if _, err := fetch(""); !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a long answer: %v", err)
	}
	if p, err := fetch("/busy"); err == nil || p.Spent().Overloads != 1 {
		t.Errorf("503 is a sign of overload: %v %+v", err, p.Spent())
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzParseProfile(f *testing.F) {
	f.Add(made(map[string]int64{"a;b": 3, "b": 1}))
	var heap bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&heap, 0)
	f.Add(heap.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		for kind := range kinds {
			if p, err := ParseProfile(data, kind, "", 1<<20); err == nil {
				p.Functions()
				p.Tree(0.01)
			}
		}
	})
}
