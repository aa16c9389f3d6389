package fleet

import (
	"context"
	"log/slog"
	"time"
)

// Replicas starts and stops copies of a workload on this machine.
type Replicas interface {
	// Start orders one more. It returns when it is ordered, and need not wait until it is ready.
	Start(ctx context.Context) error
	// Stop takes one away, gently: calls in it may end.
	Stop(ctx context.Context) error
	// Count is how many take calls, and how many were ordered and do not yet.
	Count() (ready, starting int)
}

const (
	localEvery   = time.Second
	localPatient = 30 * time.Second // for one Start or Stop
	localStarts  = 4                // at once
)

// Local keeps as many replicas as are recommended. It is made for a lab and for single machines; Kubernetes has KEDA.
// Set the fields and Run it once.
type Local struct {
	Board    *Board
	Workload string
	Replicas Replicas
	Log      *slog.Logger
}

// Run starts and stops replicas until ctx ends; it leaves those that run alone then. Recommendations of a dry run, and those
// older than a minute, are not acted upon.
func (l *Local) Run(ctx context.Context) {
	var d localDecider
	tick := time.NewTicker(localEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		r, ok := l.Board.Get(now, l.Workload)
		if !ok || r.DryRun {
			continue
		}
		ready, starting := l.Replicas.Count()
		starts, stops := d.steps(now, r.Desired, ready, starting)
		l.carryOut(ctx, &d, starts, stops)
	}
}

func (l *Local) carryOut(ctx context.Context, d *localDecider, starts, stops int) {
	for i := range starts + stops {
		do, what := l.Replicas.Start, "start"
		if i >= starts {
			do, what = l.Replicas.Stop, "stop"
		}
		within, cancel := context.WithTimeout(ctx, localPatient)
		err := do(within)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if d.done(time.Now(), err); err != nil {
			l.Log.Warn("a replica did not "+what, "workload", l.Workload, "error", err)
			return
		}
		l.Log.Info("replica "+what, "workload", l.Workload)
	}
}

// localDecider says what to do about a difference. It is told the time.
type localDecider struct {
	failures int
	again    time.Time // not before, after a failure
}

// steps is how many replicas to start or to stop now: up to four at once, one by one down.
func (d *localDecider) steps(now time.Time, desired, ready, starting int) (starts, stops int) {
	switch missing := desired - ready - starting; {
	case now.Before(d.again):
		return 0, 0
	case missing > 0:
		return min(missing, localStarts), 0
	case missing < 0:
		return 0, 1
	}
	return 0, 0
}

// done notes how a step ended: after a failure it rests for a second, doubled with each further one, up to a minute.
func (d *localDecider) done(now time.Time, err error) {
	if err == nil {
		*d = localDecider{}
		return
	}
	d.again = now.Add(min(time.Second<<min(d.failures, 6), time.Minute))
	d.failures++
}
