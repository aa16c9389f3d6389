package longpole_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/setting"
)

func TestFallbackAnswersFailuresAndRefusalsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for class, want := range map[call.Class]bool{
			call.Server: true, call.Refused: true, call.Timeout: true, call.Shed: true, call.Client: false, call.Canceled: false,
		} {
			p := policy(t, longpole.Config{Fallback: &longpole.Fallback{}})
			for _, answered := range []bool{false, true} {
				s := spare{storing: storing{&script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: class}, answered: answered}}}}}
				var rec call.Record
				r, err := longpole.Do(t.Context(), p, idem, &rec, s)
				if got := err == nil && r.value == "spare"; got != want || rec.Fallback != want || rec.Class != class {
					t.Errorf("%v: %v, %v, %+v", class, r, err, rec)
				}
				if discarded := len(s.dropped()) == 1; discarded != (want && answered) {
					t.Errorf("%v: the failed answer is not released, or too early", class)
				}
				if err == nil {
					r.close()
				}
			}
		}
	})
}

func TestAFallbackThatFailsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Fallback: &longpole.Fallback{Timeout: 200 * ms}})
		for _, took := range []time.Duration{0, time.Hour} {
			s := spare{storing: storing{&script{steps: []step{{took: 10 * ms, out: call.Outcome{Class: call.Server}, answered: true}}}}, fails: true, took: took}
			var rec call.Record
			r, err := longpole.Do(t.Context(), p, idem, &rec, s)
			if err != nil || r.value != "answer 1" || rec.Fallback || len(s.dropped()) != 0 || rec.Latency != min(took, 200*ms)+10*ms {
				t.Error(r, err, rec.Latency)
			}
			s.steps = []step{fail10}
			if _, err := longpole.Do(t.Context(), p, idem, nil, s); !errors.Is(err, errFake) {
				t.Error(err)
			}
		}
	})
}

func TestAFallbackHasTimeAfterTheTimeoutAndItsAnswerLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: 100 * ms, Fallback: &longpole.Fallback{Timeout: time.Second}})
		s := spare{storing: storing{&script{steps: []step{hang}}}, took: 50 * ms}
		r, err := longpole.Do(t.Context(), p, idem, nil, s)
		if err != nil || r.value != "spare" || !r.readable() {
			t.Fatal(r, err)
		}
		time.Sleep(500 * ms)
		if !r.readable() {
			t.Error("cut off before its body was closed")
		}
		r.close()
		if r.readable() {
			t.Error("the context outlives the body")
		}
		// The caller's own deadline is the end of everything.
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		if _, err := longpole.Do(ctx, p, idem, nil, s); longpole.Class(err) != call.Timeout {
			t.Error(err)
		}
	})
}

func TestAStaleAnswerIsTheFirstFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{TTL: time.Second}, Fallback: &longpole.Fallback{Stale: time.Minute}})
		s := spare{storing: storing{&script{storable: true, steps: []step{ok10, fail10}}}}
		for i, want := range []string{"answer 1", "answer 1", "spare"} {
			var rec call.Record
			r, err := longpole.Do(t.Context(), p, keyed, &rec, s)
			if err != nil || r.value != want || rec.Cache != []call.CacheState{call.Miss, call.Stale, call.Miss}[i] {
				t.Error(i, r, err, rec.Cache)
			}
			r.close()
			time.Sleep([]time.Duration{2 * time.Second, 2 * time.Minute, 0}[i])
		}
	})
}

func TestFallbackNamesEveryFault(t *testing.T) {
	c := longpole.Config{MinTry: -1, Fallback: &longpole.Fallback{Stale: 1, Timeout: -1, Static: &longpole.Static{Status: 99, Body: strings.Repeat("x", 65<<10)}}}
	var got []string
	for _, e := range setting.List(c.Validate()) {
		if f, ok := errors.AsType[*setting.Error](e); ok {
			got = append(got, f.Path)
		}
	}
	if want := "min_try fallback.timeout fallback.static.status fallback.static.body fallback.stale"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	d := longpole.Fallback{Static: &longpole.Static{}}.WithDefaults()
	if d.Timeout != time.Second || d.Static.Status != 200 || d.Static.Type == "" {
		t.Errorf("%+v", d)
	}
}
