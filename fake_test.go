package longpole_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

const ms = time.Millisecond

var (
	errFake = errors.New("fake failure")
	idem    = call.Info{Route: "orders", Idempotent: true}
)

// step is how one attempt goes.
type step struct {
	took     time.Duration // 0 = at once
	out      call.Outcome  // a class other than OK is an error, unless answered
	answered bool          // a failure with an answer, as HTTP 503 has
	deaf     bool          // does not hear its context
	reaction time.Duration // between the end of its context and its return
}

var (
	ok10   = step{took: 10 * ms}
	fail10 = step{took: 10 * ms, out: call.Outcome{Class: call.Server}}
	hang   = step{took: time.Hour}
)

// answer stands for one with a body that can be read as long as its context lives.
type answer struct {
	number  int
	ctx     context.Context
	value   string
	out     call.Outcome
	release func()
}

func (a *answer) readable() bool { return a != nil && (a.ctx == nil || a.ctx.Err() == nil) }

// close is what the caller does at the end of the body.
func (a *answer) close() { a.release() }

// script is a Work whose attempts go step by step; the last step is repeated. It logs what happens and when.
type script struct {
	steps    []step
	storable bool
	keeps    time.Duration // how long Keep takes
	quiet    bool

	mu        sync.Mutex
	begun     time.Time
	log       []string
	places    []string // endpoint of each attempt
	sent      []time.Duration
	discarded []int // attempts
	held      int
	opened    int
}

func (s *script) note(format string, args ...any) {
	if !s.quiet {
		s.log = append(s.log, fmt.Sprintf("%4d ", time.Since(s.begun).Milliseconds())+fmt.Sprintf(format, args...))
	}
}

func (s *script) begin(a longpole.Attempt) step {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.IsZero() {
		s.begun = time.Now()
	}
	s.places, s.sent = append(s.places, a.Endpoint), append(s.sent, time.Since(s.begun))
	kind := "try"
	if a.Hedge {
		kind = "hedge"
	}
	s.note("%s %d at %s", kind, a.Number, cmp.Or(a.Endpoint, "-"))
	return s.steps[min(len(s.sent), len(s.steps))-1]
}

func (s *script) Try(ctx context.Context, a longpole.Attempt) (*answer, error) {
	st := s.begin(a)
	if st.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	timer := time.NewTimer(st.took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		time.Sleep(st.reaction)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.note("%d cut off", a.Number)
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("%d ends: %v", a.Number, st.out.Class)
	if st.out.Class != call.OK && !st.answered {
		return nil, failure{st.out}
	}
	return &answer{number: a.Number, ctx: ctx, value: fmt.Sprint("answer ", len(s.sent)), out: st.out, release: func() {}}, nil
}

// failure carries the outcome to Judge.
type failure struct{ out call.Outcome }

func (f failure) Error() string { return errFake.Error() }
func (f failure) Unwrap() error { return errFake }

func (s *script) Judge(r *answer, err error) call.Outcome {
	var f failure
	switch {
	case errors.As(err, &f):
		return f.out
	case err != nil:
		return call.Outcome{Class: call.Server}
	}
	return r.out
}

func (s *script) Discard(r *answer) {
	if r == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("discard %d", r.number)
	s.discarded = append(s.discarded, r.number)
}

func (s *script) Hold(r *answer, release func()) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	r.release = release
	return r
}

// value is what a script keeps.
type value string

func (v value) Size() int64 { return int64(len(v)) }

// storing is a script whose answers can be kept.
type storing struct{ *script }

func (s storing) Keep(r *answer, limit int64) (longpole.Kept[*answer], bool) {
	time.Sleep(s.keeps)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("keep %d: %v", r.number, s.storable)
	if !s.storable || !r.readable() {
		return longpole.Kept[*answer]{Rest: r}, false
	}
	return longpole.Kept[*answer]{Value: value(r.value)}, true
}

func (s storing) Open(v cache.Value, state call.CacheState) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("open: %v", state)
	s.opened++
	return &answer{value: string(v.(value))}
}

func (s *script) tries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

func (s *script) dropped() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.discarded)
}

func (s *script) diagram() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

// policy makes one that is closed at the end of the test.
func policy(t testing.TB, c longpole.Config, endpoints ...string) *longpole.Policy {
	t.Helper()
	p, err := longpole.New(c, set(endpoints...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// took runs f and returns how long it took, to the millisecond in a bubble.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
