package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
)

// gated runs a controller whose changes must be verified elsewhere first.
func gated(t *testing.T, r *road, p *paper, verified func(Spec, string) (Verification, error), f func(*Controller)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := NewController(Options{Target: r, Journal: p, Verified: verified})
		ended := make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		synctest.Wait()
		f(c)
		c.Close()
		<-ended
	})
}

func unverified(Spec, string) (Verification, error) {
	return Verification{}, fmt.Errorf("%w: staging has no record", ErrUnverified)
}

func TestAChangeThatWasNotVerifiedIsRefused(t *testing.T) {
	r := newRoad(.6)
	gated(t, r, &paper{}, unverified, func(c *Controller) {
		if id, err := c.Start(trial()); !errors.Is(err, ErrUnverified) || id != "" || len(r.commands) > 0 || len(c.List()) > 0 {
			t.Errorf("%q, %v, %v", id, err, r.commands)
		}
		bare := trial()
		bare.Override, bare.Reason = true, ""
		if _, err := c.Start(bare); err == nil || !strings.Contains(err.Error(), "override") {
			t.Errorf("an override without a reason: %v", err)
		}
	})
}

func TestAnOverrideIsCarefulAndStandsInTheJournal(t *testing.T) {
	p, r := &paper{}, newRoad(.6)
	gated(t, r, p, unverified, func(c *Controller) {
		spec := trial()
		spec.Steps, spec.Override, spec.Reason = []float64{0.25, 0.5}, true, "the outage cannot wait"
		s := wait(c, mustStart(t, c, spec))
		text := fmt.Sprint(s.Journal)
		if s.Phase != Promoted || !s.Override || !s.Weak || s.Steps != 3 || !strings.Contains(text, "the outage cannot wait") || !strings.Contains(text, "overridden") || !strings.Contains(text, "staging has no record") {
			t.Errorf("%+v", s)
		}
	})
	again := NewController(Options{Target: newRoad(1)})
	if doubts := again.Restore(p.read(t)); len(doubts) > 0 {
		t.Error(doubts)
	}
	if s, _ := again.Get("r1"); !s.Override || s.Reason != "the outage cannot wait" {
		t.Errorf("the override is forgotten with the process: %+v", s)
	}
}

func TestAWeakRecordTakesMoreEvidence(t *testing.T) {
	took := func(v Verification) (s Status) {
		gated(t, newRoad(1), &paper{}, func(Spec, string) (Verification, error) { return v, nil }, func(c *Controller) {
			spec := trial()
			spec.Steps, spec.Goal, spec.Risk = []float64{0.05, 0.25, 0.5}, GoalNoWorse, 1
			s = wait(c, mustStart(t, c, spec))
		})
		return s
	}
	strong, weak := took(Verification{Text: "verified in staging by r3"}), took(Verification{Text: "verified in staging by r3; fidelity 40 of 100 (weak)", Weak: true})
	if strong.Phase != Promoted || strong.Weak || strong.Steps != 3 || !strings.Contains(fmt.Sprint(strong.Journal), "verified in staging by r3") {
		t.Errorf("%+v", strong)
	}
	if weak.Phase != Promoted || !weak.Weak || weak.Steps != 4 || weak.Journal[2].Weight > weakFirstStep || weak.Ended.Sub(weak.Started) < strong.Ended.Sub(strong.Started)+30*time.Second {
		t.Errorf("%s with %d steps in %s, where a strong record took %s: %v", weak.Phase, weak.Steps, weak.Ended.Sub(weak.Started), strong.Ended.Sub(strong.Started), weak.Journal)
	}
}

func TestTheHashIsOfTheWholePolicy(t *testing.T) {
	r := newRoad(1)
	hashes := map[string]string{}
	gated(t, r, &paper{}, func(spec Spec, hash string) (Verification, error) {
		hashes[spec.Reason] = hash
		return Verification{}, ErrUnverified
	}, func(c *Controller) {
		for reason, to := range map[string]longpole.Config{
			"a": {Timeout: 9 * time.Second}, "the same with its defaults": longpole.Config{Timeout: 9 * time.Second}.Safe(), "another": {Timeout: 8 * time.Second},
		} {
			_, _ = c.Start(Spec{Change: longpole.Change{Route: "all", To: to}, Reason: reason})
		}
	})
	if len(hashes) != 3 || hashes["a"] != hashes["the same with its defaults"] || hashes["a"] == hashes["another"] {
		t.Errorf("%v", hashes)
	}
}

func TestWhatIsSwitchedOffIsListedWithItsTime(t *testing.T) {
	p := &paper{}
	c := NewController(Options{Target: newRoad(1), Journal: p})
	if err := c.Kill("", []string{"cache"}, "stale prices"); err != nil {
		t.Fatal(err)
	}
	since := c.Killed()[""].Since
	again := NewController(Options{Target: newRoad(1)})
	again.Restore(p.read(t))
	if k := again.Killed()[""]; k.Reason != "stale prices" || !k.Since.Equal(since) || since.IsZero() {
		t.Errorf("%+v, want it since %s", k, since)
	}
	if err := c.Kill("", nil, "prices are right"); err != nil || len(c.Killed()) != 0 {
		t.Errorf("%v, %v", err, c.Killed())
	}
}
