package fleet

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/scale"
)

func TestLocalSteps(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		desired, ready, starting int
		starts, stops            int
	}{
		"enough":                    {3, 3, 0, 0, 0},
		"what starts counts":        {3, 1, 2, 0, 0},
		"one is missing":            {3, 1, 1, 1, 0},
		"no more than four at once": {20, 1, 1, 4, 0},
		"one by one down":           {1, 5, 0, 0, 1},
		"none":                      {0, 1, 0, 0, 1},
	} {
		var d localDecider
		if starts, stops := d.steps(now, c.desired, c.ready, c.starting); starts != c.starts || stops != c.stops {
			t.Errorf("%s: start %d, stop %d; want %d, %d", name, starts, stops, c.starts, c.stops)
		}
	}
}

func TestLocalRestsAfterFailures(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var d localDecider
	for _, rest := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		d.done(now, errors.New("no room"))
		if starts, _ := d.steps(now.Add(rest-1), 2, 1, 0); starts != 0 {
			t.Errorf("it did not rest for %v", rest)
		}
		if starts, _ := d.steps(now.Add(rest), 2, 1, 0); starts != 1 {
			t.Errorf("it rests for longer than %v", rest)
		}
		now = now.Add(rest)
	}
	d.done(now, nil)
	if starts, _ := d.steps(now, 2, 1, 0); starts != 1 {
		t.Error("a success did not end the rest")
	}
}

// pods are replicas that need ten seconds to start.
type pods struct {
	ready  int
	orders []time.Time
	fails  int // of the next starts
	tries  int
}

func (p *pods) Start(context.Context) error {
	p.tries++
	if p.fails > 0 {
		p.fails--
		return errors.New("no room")
	}
	p.orders = append(p.orders, time.Now().Add(10*time.Second))
	return nil
}

func (p *pods) Stop(context.Context) error {
	p.ready--
	return nil
}

func (p *pods) Count() (ready, starting int) {
	for len(p.orders) > 0 && !time.Now().Before(p.orders[0]) {
		p.orders, p.ready = p.orders[1:], p.ready+1
	}
	return p.ready, len(p.orders)
}

func TestLocalReachesWhatIsRecommended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := &Board{}, &pods{ready: 1, fails: 2}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			(&Local{Board: b, Workload: "orders", Replicas: p, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
			close(done)
		}()
		wait := func(desired int, dry bool, d time.Duration) {
			for range int(d / time.Second) {
				b.Set(scale.Recommendation{Name: "orders", At: time.Now(), Desired: desired, DryRun: dry})
				time.Sleep(time.Second)
			}
			synctest.Wait()
		}
		wait(5, true, 5*time.Second)
		if p.tries != 0 {
			t.Error("a dry run started something")
		}
		wait(5, false, 30*time.Second)
		if ready, starting := p.Count(); ready != 5 || starting != 0 {
			t.Errorf("%d ready, %d starting; want 5", ready, starting)
		}
		if p.tries != 4+2 {
			t.Errorf("%d attempts for 4 replicas of which 2 failed", p.tries)
		}
		wait(2, false, 10*time.Second)
		if ready, _ := p.Count(); ready != 2 {
			t.Errorf("%d ready; want 2", ready)
		}
		b.Set(scale.Recommendation{Name: "orders", At: time.Now(), Desired: 2})
		time.Sleep(staleAfter) // whoever recommends has gone
		b.Set(scale.Recommendation{Name: "orders", At: time.Now().Add(-staleAfter - time.Second), Desired: 9})
		time.Sleep(10 * time.Second)
		if ready, starting := p.Count(); ready+starting != 2 {
			t.Errorf("%d after an old recommendation; want 2", ready+starting)
		}
		cancel()
		<-done
	})
}
