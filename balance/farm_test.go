package balance

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// farm is a discrete-event model of the testbed of the Prequal paper (section 5.1), simplified: replicas that share
// their capacity between the requests they have, work drawn from a normal distribution with sigma = mu, capacities that
// antagonists redraw every 5 s to 15 s, a deadline of 5 s, and clients that each see only what a real client sees. The balancers and the
// servers' load accounts are the real code.
type farm struct {
	load     float64 // offered, as a multiple of what is allocated
	clients  int
	replicas int
	span     float64 // seconds
	warmup   float64 // seconds that are not counted
	cfg      Config
	halfSlow bool // half of the replicas need twice the time, and nothing else differs
	piggy    bool // ordinary answers carry the load too
	estimate Estimator

	r       *rand.Rand
	servers []psServer
	by      []*Balancer
	events  events
	now     float64

	latencies []float64
	failed    int
	rifs      []int
}

const (
	farmAllocated = 4.0 // CPUs
	farmWork      = 0.075
	farmDeadline  = 5.0
)

// result is what a run came to.
type result struct {
	p50, p99, p999 time.Duration
	failed, calls  int
	rif            int // the 99th percentile of what replicas had in flight
}

type psJob struct {
	due, began float64 // due in the server's virtual time
	rif        int
	client     int
	e          *Endpoint
	gone       bool
}

type psServer struct {
	capacity, virtual, at float64
	slow                  float64
	jobs                  []*psJob // a heap by due
	order                 []*psJob // by began
	version               int
	load                  ServerLoad
}

func (s *psServer) rate() float64 {
	if len(s.jobs) == 0 {
		return 0
	}
	return min(1, s.capacity/float64(len(s.jobs))) / s.slow
}

func (s *psServer) advance(t float64) {
	s.virtual += (t - s.at) * s.rate()
	s.at = t
}

type event struct {
	at      float64
	server  int
	version int // -1 = the capacity is redrawn
}

// events is a heap by time.
type events []event

func push[T any](h []T, x T, less func(a, b T) bool) []T {
	h = append(h, x)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !less(h[i], h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	return h
}

func pop[T any](h []T, i int, less func(a, b T) bool) []T {
	last := len(h) - 1
	h[i] = h[last]
	h = h[:last]
	if i == last {
		return h
	}
	for i > 0 && less(h[i], h[(i-1)/2]) {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c >= len(h) {
			return h
		}
		if c+1 < len(h) && less(h[c+1], h[c]) {
			c++
		}
		if !less(h[c], h[i]) {
			return h
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

func earlier(a, b event) bool { return a.at < b.at }
func sooner(a, b *psJob) bool { return a.due < b.due }

func (f *farm) time(t float64) time.Time { return t0.Add(time.Duration(t * 1e9)) }

func (f *farm) draw() float64 {
	if f.halfSlow {
		return farmAllocated * 1.3
	}
	return farmAllocated * (0.95 + 1.65*f.r.Float64())
}

func (f *farm) run(seed uint64) result {
	f.r = rand.New(rand.NewPCG(seed, 1))
	f.servers = make([]psServer, f.replicas)
	names := make([]string, f.replicas)
	for i := range f.servers {
		names[i] = strconv.Itoa(i)
		f.servers[i].capacity, f.servers[i].slow, f.servers[i].load.Estimator = f.draw(), 1, f.estimate
		if f.halfSlow && i%2 == 0 {
			f.servers[i].slow = 2
		}
		f.events = push(f.events, event{10 * f.r.Float64(), i, -1}, earlier)
	}
	dice := rand.New(rand.NewPCG(seed, 2)) // apart, so that all rules meet the same arrivals, work and capacities
	for range f.clients {
		b := New(f.cfg, NewSet(names...))
		b.rand = dice.Uint64
		b.turn.Store(dice.Uint64N(uint64(f.replicas)))
		f.by = append(f.by, b)
	}
	qps := f.load * float64(f.replicas) * farmAllocated / farmWork
	for next := 0.0; next < f.span; next += f.r.ExpFloat64() / qps {
		for f.events[0].at <= next {
			e := f.events[0]
			f.events = pop(f.events, 0, earlier)
			f.happen(e)
		}
		f.now = next
		f.arrive()
	}
	slices.Sort(f.latencies)
	slices.Sort(f.rifs)
	at := func(q float64) time.Duration {
		return time.Duration(f.latencies[int(float64(len(f.latencies)-1)*q)] * 1e9)
	}
	return result{at(0.5), at(0.99), at(0.999), f.failed, len(f.latencies), f.rifs[len(f.rifs)*99/100]}
}

func (f *farm) plan(i int) {
	s := &f.servers[i]
	s.version++
	if len(s.jobs) > 0 {
		f.events = push(f.events, event{s.at + (s.jobs[0].due-s.virtual)/s.rate(), i, s.version}, earlier)
	}
}

func (f *farm) happen(e event) {
	s := &f.servers[e.server]
	switch {
	case e.version < 0:
		s.advance(e.at)
		s.capacity = f.draw()
		f.events = push(f.events, event{e.at + 5 + 10*f.r.Float64(), e.server, -1}, earlier)
	case e.version != s.version:
		return
	default:
		s.advance(e.at)
		j := s.jobs[0]
		s.jobs = pop(s.jobs, 0, sooner)
		f.end(e.server, j, e.at, e.at-j.began, call.OK)
		for len(s.order) > 0 && (s.order[0].gone || e.at-s.order[0].began > farmDeadline) {
			x := s.order[0]
			s.order = s.order[1:]
			if !x.gone {
				s.jobs = pop(s.jobs, slices.Index(s.jobs, x), sooner)
				f.end(e.server, x, e.at, farmDeadline, call.Timeout)
			}
		}
	}
	f.plan(e.server)
}

func (f *farm) end(server int, j *psJob, t, took float64, class call.Class) {
	j.gone = true
	d := time.Duration(took * 1e9)
	s := &f.servers[server]
	s.load.End(f.time(t), j.rif, d, class == call.OK)
	f.by[j.client].Done(j.e, f.time(t), call.Outcome{Class: class, Latency: d})
	if f.piggy {
		f.by[j.client].Report(j.e, f.time(t), s.load.Load(f.time(t)))
	}
	if j.began < f.warmup {
		return
	}
	f.latencies = append(f.latencies, took)
	if class != call.OK {
		f.failed++
	}
}

func (f *farm) arrive() {
	client := f.r.IntN(f.clients)
	b, now := f.by[client], f.time(f.now)
	e, err := b.Pick(now, nil)
	if err != nil {
		panic(err)
	}
	for _, asked := range b.Probes(now) {
		i, _ := strconv.Atoi(asked.Name())
		f.servers[i].advance(f.now)
		b.Report(asked, now, f.servers[i].load.Load(now))
	}
	i, _ := strconv.Atoi(e.Name())
	s := &f.servers[i]
	s.advance(f.now)
	work := math.Max(0.0005, farmWork*(1+f.r.NormFloat64())) * 0.92
	j := &psJob{due: s.virtual + work, began: f.now, rif: s.load.Begin(), client: client, e: e}
	s.jobs = push(s.jobs, j, sooner)
	s.order = append(s.order, j)
	f.plan(i)
	if f.now > f.warmup && f.r.IntN(50) == 0 {
		for i := 0; i < len(f.servers); i += 10 {
			f.rifs = append(f.rifs, len(f.servers[i].jobs))
		}
	}
}

func (r result) log(t *testing.T, name string) {
	t.Logf("%-28s p50 %4d ms  p99 %4d ms  p99.9 %4d ms  errors %.3f %%  RIF p99 %d  (%d calls)", name,
		r.p50.Milliseconds(), r.p99.Milliseconds(), r.p999.Milliseconds(), 100*float64(r.failed)/float64(r.calls), r.rif, r.calls)
}
