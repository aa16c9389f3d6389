package limit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/call"
)

func rated(r Rate) *Limiter { return New(Config{Algorithm: None, Rate: &r}) }

func bothRates(t *testing.T, test func(t *testing.T, algorithm string)) {
	for _, algorithm := range []string{TokenBucket, GCRA} {
		t.Run(algorithm, func(t *testing.T) { test(t, algorithm) })
	}
}

func TestARateAdmitsTheBurstAndThenOnePerPeriod(t *testing.T) {
	bothRates(t, func(t *testing.T, algorithm string) {
		l := rated(Rate{PerSecond: 10, Burst: 3, Algorithm: algorithm})
		for _, c := range []struct {
			at    time.Duration
			ok    bool
			after time.Duration
		}{
			{0, true, 0},
			{0, true, 0},
			{0, true, 0},
			{0, false, 100 * ms},
			{40 * ms, false, 60 * ms},
			{100 * ms, true, 0},
			{100 * ms, false, 100 * ms},
			{250 * ms, true, 0},
			{290 * ms, false, 10 * ms},
			{300 * ms, true, 0},
			{10 * time.Second, true, 0},
			{10 * time.Second, true, 0},
			{10 * time.Second, true, 0},
			{10 * time.Second, false, 100 * ms},
		} {
			got := l.Admit(at(c.at), call.Info{}, never)
			if got.Admitted() != c.ok || !c.ok && !errors.Is(got.Refused(), ErrRate) {
				t.Errorf("at %v: %v, want admitted %v", c.at, got.Refused(), c.ok)
			}
			if d := got.RetryAfter() - c.after; d < -time.Microsecond || d > time.Microsecond {
				t.Errorf("at %v: retry after %v, want %v", c.at, got.RetryAfter(), c.after)
			}
		}
	})
}

// Times are whole periods and rates are powers of two, so that rounding cannot tell the two apart.
func TestTheTwoRatesAdmitTheSameCallsAndNeverMoreThanTheyMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.IntRange(1, 6).Draw(t, "burst")
		perSecond := float64(int(1) << rapid.IntRange(0, 9).Draw(t, "rate"))
		a, b := rated(Rate{PerSecond: perSecond, Burst: burst}), rated(Rate{PerSecond: perSecond, Burst: burst, Algorithm: GCRA})
		unit := time.Duration(1e9 / perSecond / 8)
		var begun []time.Duration
		now := time.Duration(0)
		for range rapid.IntRange(1, 80).Draw(t, "calls") {
			now += unit * time.Duration(rapid.IntRange(0, 12).Draw(t, "eighths"))
			x, y := a.Admit(at(now), call.Info{}, never).Admitted(), b.Admit(at(now), call.Info{}, never).Admitted()
			if x != y {
				t.Fatalf("at %v: token bucket %v, GCRA %v", now, x, y)
			}
			if !x {
				continue
			}
			begun = append(begun, now)
			for i, from := range begun {
				if n, most := len(begun)-i, float64(burst)+(now-from).Seconds()*perSecond+1e-6; float64(n) > most {
					t.Fatalf("%d calls in %v, at most %.2f may begin", n, now-from, most)
				}
			}
		}
	})
}

func TestEachTenantHasItsOwnRate(t *testing.T) {
	bothRates(t, func(t *testing.T, algorithm string) {
		l := rated(Rate{PerSecond: 1, Burst: 1, PerTenant: true, Algorithm: algorithm})
		for range 100 {
			l.Admit(at(0), call.Info{Tenant: "flood"}, never)
		}
		if !l.Admit(at(0), call.Info{Tenant: "modest"}, never).Admitted() {
			t.Error("one tenant's flood took another's rate")
		}
		if l.Admit(at(0), call.Info{Tenant: "flood"}, never).Admitted() {
			t.Error("the flood passes")
		}
	})
}

func TestTheTenantsOfARateAreBounded(t *testing.T) {
	bothRates(t, func(t *testing.T, algorithm string) {
		l := rated(Rate{PerSecond: 1, Burst: 1, PerTenant: true, Tenants: 100, Algorithm: algorithm})
		admitted := 0
		for i := range 10_000 {
			if l.Admit(at(0), call.Info{Tenant: fmt.Sprint(i)}, never).Admitted() {
				admitted++
			}
		}
		if n := len(l.rate.each); n > 100 || admitted != 101 {
			t.Errorf("%d tenants are kept, want 100; %d calls passed, want 100 and one of all the others", n, admitted)
		}
		// When the first have their whole allowance back, they make room.
		for i := range 50 {
			if !l.Admit(at(2*time.Second), call.Info{Tenant: fmt.Sprint("new ", i)}, never).Admitted() {
				t.Fatalf("new tenant %d has no allowance", i)
			}
		}
		if n := len(l.rate.each); n > 100 {
			t.Errorf("%d tenants are kept", n)
		}
	})
}

func TestANewRateBeginsWholeAndTheSameKeepsItsState(t *testing.T) {
	l := rated(Rate{PerSecond: 1, Burst: 1})
	l.Admit(at(0), call.Info{}, never)
	l.Reconfigure(at(0), Config{Algorithm: None, Rate: &Rate{PerSecond: 1, Burst: 1}})
	if l.Admit(at(0), call.Info{}, never).Admitted() {
		t.Error("the same rate forgot what it had admitted")
	}
	l.Reconfigure(at(0), Config{Algorithm: None, Rate: &Rate{PerSecond: 5, Burst: 1}})
	if !l.Admit(at(0), call.Info{}, never).Admitted() {
		t.Error("the new rate is not in force")
	}
	l.Reconfigure(at(0), Config{Algorithm: None})
	if !l.Admit(at(0), call.Info{}, never).Admitted() {
		t.Error("no rate, and still refused")
	}
}

func TestARefusalByRateIsNoShedding(t *testing.T) {
	l := rated(Rate{PerSecond: 1, Burst: 1})
	l.Admit(at(0), call.Info{}, never)
	l.Admit(at(0), call.Info{}, never)
	if l.Shedding(at(0)) || l.Counts().Rate != 1 {
		t.Errorf("shedding %v, %+v", l.Shedding(at(0)), l.Counts())
	}
}
