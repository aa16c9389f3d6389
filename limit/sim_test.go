package limit

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"

	"github.com/longpole/longpole/call"
)

const ms = time.Millisecond

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// sim is a discrete-event simulation of callers, a Limiter and a dependency, in virtual time. The dependency has
// workers that take one call at a time; the others queue there, first come, first served. A caller whose
// timeout passes leaves, but its work is done all the same, which is the worst that real servers do.
type sim struct {
	l       *Limiter // nil = no protection
	rand    *rand.Rand
	now     time.Duration
	events  events
	seq     int
	workers int
	busy    int
	backlog []*simCall
	service func(*simCall) time.Duration
	timeout time.Duration // of the callers; 0 = none
	hidden  bool          // the limiter does not know the deadline
	arrive  func() (rate float64, info call.Info)
	until   time.Duration
	ended   func(*simCall)
	made    int // calls that reached the dependency
	waiting []*simCall
}

type simCall struct {
	info  call.Info
	tick  Ticket
	start time.Duration // it arrived
	sent  time.Duration
	done  bool
	class call.Class
}

type event struct {
	at  time.Duration
	seq int
	run func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

func newSim(l *Limiter, workers int, mean, timeout time.Duration, seed uint64) *sim {
	s := &sim{l: l, workers: workers, timeout: timeout, rand: rand.New(rand.NewPCG(seed, 7))}
	s.service = func(*simCall) time.Duration { return s.lognormal(mean, 0.5) }
	s.ended = func(*simCall) {}
	return s
}

func (s *sim) lognormal(mean time.Duration, cv float64) time.Duration {
	sigma := math.Sqrt(math.Log(1 + cv*cv))
	return time.Duration(float64(mean) * math.Exp(sigma*s.rand.NormFloat64()-sigma*sigma/2))
}

func (s *sim) after(d time.Duration, run func()) {
	s.seq++
	heap.Push(&s.events, event{s.now + d, s.seq, run})
}

func (s *sim) clock() time.Time { return epoch.Add(s.now) }

// run lets calls arrive as a Poisson process until the given time.
func (s *sim) run(until time.Duration) {
	s.until = until
	s.next()
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.run()
	}
}

func (s *sim) next() {
	rate, info := s.arrive()
	s.after(time.Duration(s.rand.ExpFloat64()/rate*1e9), func() {
		if s.now < s.until {
			s.begin(info)
			s.next()
		}
	})
}

func (s *sim) begin(info call.Info) {
	c := &simCall{info: info, start: s.now}
	var deadline time.Time
	if s.timeout > 0 && !s.hidden {
		deadline = s.clock().Add(s.timeout)
	}
	if s.l == nil {
		s.send(c)
		return
	}
	c.tick = s.l.Admit(s.clock(), info, deadline)
	if c.tick.Waiting() {
		s.poll(c)
		s.wake() // it may have displaced another
		s.after(c.tick.Expiry().Sub(s.clock()), func() {
			s.l.Expire(s.clock(), c.tick)
			s.wake()
		})
		return
	}
	s.poll(c)
}

// poll follows a ticket once it is decided.
func (s *sim) poll(c *simCall) {
	switch {
	case c.done || c.sent > 0:
	case c.tick.Waiting():
		s.waiting = append(s.waiting, c)
	case c.tick.Admitted():
		s.send(c)
	default:
		s.finish(c, call.Shed)
	}
}

// wake follows all tickets that were decided by what just happened.
func (s *sim) wake() {
	if s.l.queue.waiting == len(s.waiting) {
		return
	}
	kept := s.waiting[:0]
	var ready []*simCall
	for _, c := range s.waiting {
		if c.tick.w.line != nil { // quicker than to ask whether it waits
			kept = append(kept, c)
		} else {
			ready = append(ready, c)
		}
	}
	s.waiting = kept
	for _, c := range ready {
		s.poll(c)
	}
}

func (s *sim) send(c *simCall) {
	c.sent = max(s.now, 1)
	s.made++
	if s.timeout > 0 {
		s.after(max(c.start+s.timeout-s.now, 0), func() { s.finish(c, call.Timeout) })
	}
	if s.busy < s.workers {
		s.work(c)
	} else {
		s.backlog = append(s.backlog, c)
	}
}

func (s *sim) work(c *simCall) {
	s.busy++
	s.after(s.service(c), func() {
		s.busy--
		if len(s.backlog) > 0 {
			next := s.backlog[0]
			s.backlog = s.backlog[1:]
			s.work(next)
		}
		s.finish(c, call.OK)
	})
}

func (s *sim) finish(c *simCall, class call.Class) {
	if c.done {
		return
	}
	c.done, c.class = true, class
	if s.l != nil && class != call.Shed {
		s.l.Done(s.clock(), c.tick, call.Outcome{Class: class, Latency: s.now - c.sent})
	}
	s.ended(c)
	if s.l != nil {
		s.wake()
	}
}

// steady is an arrival process of normal calls.
func steady(rate float64) func() (float64, call.Info) {
	return func() (float64, call.Info) { return rate, call.Info{} }
}
