package longpole_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// A call with a copy is one call to whoever counts calls, and its loser is nobody's failure.
func TestAHedgedCallCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 20
		r := atOnce()
		r.Hedge = &retry.Hedge{After: 50 * ms, BudgetRatio: 1}
		endpoints := balance.NewSet("a", "b")
		p, err := longpole.New(longpole.Config{
			Limit: &limit.Config{Rate: &limit.Rate{PerSecond: 0.001, Burst: calls}}, Retry: r,
			Balance: inTurn, Breaker: &breaker.Config{MinCalls: 1, FailureRatio: 0.01},
		}, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var won, succeeded int
		for i := range calls {
			s := &script{steps: []step{{took: time.Second}, {took: 5 * ms}}}
			var rec call.Record
			a, err := longpole.Do(t.Context(), p, idem, &rec, s)
			if err != nil {
				t.Fatal(i, err)
			}
			a.close()
			synctest.Wait()
			if rec.Class == call.OK {
				succeeded++ // the one outcome that metrics, arms and histograms are fed with
			}
			for _, a := range rec.Kept() {
				if a.Won {
					won++
				}
			}
			if rec.Count != 2 || rec.Latency != 55*ms || rec.Attempts[0].Class != call.Canceled || !rec.Attempts[1].Hedge {
				t.Errorf("%+v", rec)
			}
		}
		if n := p.Limiter().Counts(); won != calls || succeeded != calls || n.Admitted != calls || p.Limiter().InFlight() != 0 {
			t.Errorf("%d won, %d succeeded, %+v of %d calls", won, succeeded, n, calls)
		}
		if _, err := longpole.Do(t.Context(), p, idem, nil, &script{steps: []step{ok10}}); !errors.Is(err, limit.ErrRate) {
			t.Error("the rate paid less than one for each call:", err)
		}
		for _, e := range endpoints.Endpoints() {
			if p.Breaker(time.Now(), e.Name()) != breaker.Closed || e.InFlight() != 0 {
				t.Error(e.Name(), "counts losers:", p.Breaker(time.Now(), e.Name()), e.InFlight())
			}
		}
	})
}

// What a limiter refuses never reached anybody: no attempt, no latency, no failure, no retry, and in its record a class
// of its own.
func TestARejectIsNobodysSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoints := balance.NewSet("a", "b")
		p, err := longpole.New(longpole.Config{
			Limit: &limit.Config{Algorithm: limit.Fixed, Limit: 1, Max: 1}, Retry: &retry.Config{Hedge: &retry.Hedge{}},
			Balance: &balance.Config{Algorithm: balance.PeakEWMA, Eject: &balance.Eject{MinCalls: 1}}, Breaker: &breaker.Config{MinCalls: 1},
		}, endpoints)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		held := p.Limiter().Admit(time.Now(), call.Info{}, time.Time{})
		s := &script{steps: []step{ok10}}
		for range 500 {
			var rec call.Record
			_, err := longpole.Do(t.Context(), p, idem, &rec, s)
			if !errors.Is(err, limit.ErrShed) || rec.Class != call.Shed || rec.Class.Failed() || rec.Count != 0 || rec.Latency != 0 {
				t.Fatalf("%v %+v", err, rec)
			}
		}
		if s.tries() != 0 || p.Limiter().Counts().Shed != 500 {
			t.Error(s.tries(), p.Limiter().Counts())
		}
		p.Limiter().Done(time.Now(), held, call.Outcome{Class: call.Canceled})
		time.Sleep(2 * time.Second) // hedges are off for a second
		for _, e := range endpoints.Endpoints() {
			if p.Breaker(time.Now(), e.Name()) != breaker.Closed || e.InFlight() != 0 {
				t.Error(e.Name(), p.Breaker(time.Now(), e.Name()), e.InFlight())
			}
		}
		// A delay that was learned from 500 instant answers would send a copy of this one.
		s = &script{steps: []step{{took: time.Minute}}}
		if _, err := longpole.Do(t.Context(), p, idem, nil, s); err != nil || s.tries() != 1 {
			t.Error(err, s.tries())
		}
	})
}

// claimed finds `package.TestName` in the table of claims.
var claimed = regexp.MustCompile("`(\\w+)\\.((?:Test|Fuzz|Benchmark)\\w+)`")

// claimants are the folders of packages that do not lie where their name says; cmd is the command.
var claimants = map[string]string{
	"longpole": ".", "stats": "internal/stats", "gateway": "internal/gateway", "httpcache": "internal/httpcache", "certs": "internal/certs",
	"offload": "internal/offload", "payload": "internal/payload", "redis": "cache/redis", "cmd": "cmd/longpole",
}

func TestEveryClaimHasItsTest(t *testing.T) {
	sources := map[string]string{}
	source := func(pkg string) string {
		if s, ok := sources[pkg]; ok {
			return s
		}
		dir, known := claimants[pkg]
		if !known {
			dir = pkg
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("no tests in %s: %v", dir, err)
		}
		var all strings.Builder
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
		sources[pkg] = all.String()
		return sources[pkg]
	}
	for file, least := range map[string]int{"docs/policies/claims.md": 40, "docs/gateway-claims.md": 60} {
		checkClaims(t, file, least, source)
	}
}

// checkClaims looks for the tests of each row of a table.
func checkClaims(t *testing.T, file string, least int, source func(pkg string) string) {
	t.Helper()
	table, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for i, line := range strings.Split(string(table), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| claim ") {
			continue
		}
		rows++
		names := claimed.FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("%s: line %d names no test: %s", file, i+1, line)
		}
		for _, name := range names {
			if !strings.Contains(source(name[1]), fmt.Sprintf("\nfunc %s(", name[2])) {
				t.Errorf("%s: line %d: there is no %s.%s", file, i+1, name[1], name[2])
			}
		}
	}
	if rows < least {
		t.Errorf("%s: only %d claims", file, rows)
	}
}
