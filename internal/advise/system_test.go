package advise

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// A system is a random distributed system that can be run, recorded, changed for real, and run again. It shares no code
// with the forecasts that it judges.
type system struct {
	root   *node
	mood   float64     // deviation of what all times of one trace are multiplied by
	drift  float64     // and of what they are from one minute to the next
	rate   float64     // calls per second
	shed   float64     // share of calls that are refused at the door
	pooled bool        // a call goes to the endpoint that is free first
	bursts bool        // calls come in bursts
	queued *node       // has a queue; a direct call of the root's, before all others
	keyed  *node       // is asked for by keys that repeat; as queued
	picked map[int]int // by trace: the endpoint of the queued node's call
}

// node is one operation of one service and what it calls.
type node struct {
	id          int
	service, op string
	before, end float64 // own work in ms, medians
	sigma       float64
	steps       [][]*node // one after the other; those of a step at once
	network     float64   // ms, both ways

	query     bool    // a database's: no span of its own side
	exec      float64 // factor on the work
	saved     float64 // ms less work
	gone      float64 // takes that many ms and nothing is waited for; -1 = not so
	rounds    int     // calls of it, one after the other
	joint     bool    // one call for all rounds
	twice     bool    // the same is asked for in one trace again and again
	reused    bool
	endpoints int
	tail      float64 // probability of a stall of the last endpoint
	stall     float64 // ms
	hedge     float64 // ms; 0 = none
	drained   bool
	stallAny  float64 // probability of a stall anywhere
	limit     float64 // ms; 0 = none
	tries     int
	fails     float64 // probability that an attempt fails
	replicas  int
	workers   int
	bytes     float64 // median size
	perByte   float64 // ms
	cut       float64
	keys      int
	ttl       float64 // ms; 0 = no cache
}

// run is one trace on its way.
type run struct {
	b     *builder
	s     *system
	seed  uint64
	n     int
	mood  float64
	waits map[int]float64 // by trace, of the node that is queued
	takes map[int]float64 // by trace, of the node that is keyed: what the cache made of it
	calls map[int]int     // by node
}

// draws is chance for one call of one node: the same whatever else is drawn.
func (r *run) draws(x *node, call int) *rand.Rand {
	return rand.New(rand.NewPCG(r.seed*1_000_003+uint64(r.n), uint64(x.id)<<20|uint64(call)))
}

func lognormal(r *rand.Rand, median, sigma float64) float64 {
	return median * math.Exp(sigma*r.NormFloat64())
}

// record runs the system n times and returns what its tracing would, and how long each call of the root took that was served.
func (s *system) record(seed uint64, n int) (traces []trace.Trace, took []float64) {
	starts := s.arrivals(seed, n)
	waits, takes := s.queue(seed, starts), s.cached(seed, starts)
	for i, start := range starts {
		if start < 0 {
			continue
		}
		r := &run{b: &builder{trace.Trace{ID: fmt.Sprintf("%08d", i)}}, s: s, seed: seed, n: i, waits: waits, takes: takes, calls: map[int]int{}}
		r.mood = s.moodOf(seed, i)
		root := r.b.span(-1, trace.Server, s.root.service, s.root.op, 0, 0)
		end := r.work(s.root, root, start, 0)
		r.b.Spans[root].Start, r.b.Spans[root].End = nanos(start), nanos(end)
		traces = append(traces, r.b.Trace)
		took = append(took, end-start)
	}
	return traces, took
}

func nanos(ms float64) int64 { return int64(ms * 1e6) }

func (s *system) moodOf(seed uint64, n int) float64 {
	const knot = 60 // traces from one turn of the weather to the next
	weather := func(k int) float64 { return rand.New(rand.NewPCG(seed*104_729, uint64(k))).NormFloat64() }
	part := float64(n%knot) / knot
	drift := (1-part)*weather(n/knot) + part*weather(n/knot+1)
	return math.Exp(s.mood*rand.New(rand.NewPCG(seed*7919, uint64(n))).NormFloat64() + s.drift*drift)
}

// arrivals are Poisson, in ms; negative = refused.
func (s *system) arrivals(seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 17))
	starts := make([]float64, n)
	at := 1000.0
	for i := range starts {
		gap := r.ExpFloat64() / s.rate * 1000
		if s.bursts { // half of the time twice as fast as the other
			gap *= 2.0 / 3
			if i/50%2 == 0 {
				gap *= 2
			}
		}
		at += gap
		if starts[i] = at; r.Float64() < s.shed {
			starts[i] = -1
		}
	}
	return starts
}

// arrives is when trace n asks a direct call of the root.
func (s *system) arrives(seed uint64, n int, start float64, x *node) float64 {
	r := &run{s: s, seed: seed, n: n}
	return start + lognormal(r.draws(s.root, 0), s.root.before, s.root.sigma)*s.moodOf(seed, n)/float64(len(s.root.steps)+1) + x.network/2
}

// queue serves the queued node's calls, first come first served, by the workers of an endpoint drawn at random.
func (s *system) queue(seed uint64, starts []float64) map[int]float64 {
	waits := map[int]float64{}
	s.picked = map[int]int{}
	x := s.queued
	if x == nil {
		return waits
	}
	type job struct {
		n  int
		at float64
	}
	var jobs []job
	for n, start := range starts {
		if start >= 0 {
			jobs = append(jobs, job{n, s.arrives(seed, n, start, x)})
		}
	}
	slices.SortFunc(jobs, func(a, b job) int { return cmp.Compare(a.at, b.at) })
	free := make([][]float64, x.replicas)
	for i := range free {
		free[i] = make([]float64, x.workers)
	}
	for _, j := range jobs {
		r := &run{s: s, seed: seed, n: j.n, mood: s.moodOf(seed, j.n)}
		endpoint := r.endpoint(x)
		if s.pooled {
			for k := range free {
				if slices.Min(free[k]) < slices.Min(free[endpoint]) {
					endpoint = k
				}
			}
		}
		s.picked[j.n] = endpoint
		servers := free[endpoint]
		at := slices.Index(servers, slices.Min(servers))
		begin := max(j.at, servers[at])
		servers[at] = begin + r.own(x, r.draws(x, 0))
		waits[j.n] = begin - j.at
	}
	return waits
}

// endpoint is which replica of the queued node serves a trace.
func (r *run) endpoint(x *node) int {
	return rand.New(rand.NewPCG(r.seed*31+uint64(r.n), 5)).IntN(x.replicas)
}

// key is what a trace asks the keyed node for: popularity falls with the rank.
func (r *run) key(x *node) int {
	return int(rand.NewZipf(rand.New(rand.NewPCG(r.seed*131+uint64(r.n), 6)), 1.3, 2, uint64(x.keys-1)).Uint64())
}

// cached is how long the keyed node's calls take with a cache before them that shares fetches.
func (s *system) cached(seed uint64, starts []float64) map[int]float64 {
	takes := map[int]float64{}
	x := s.keyed
	if x == nil || x.ttl == 0 {
		return takes
	}
	fresh, flying := map[int]float64{}, map[int]float64{}
	for n, start := range starts {
		r := &run{s: s, seed: seed, n: n, mood: s.moodOf(seed, n)}
		at, key := s.arrives(seed, n, start, x), r.key(x)
		if end, ok := flying[key]; ok && end <= at {
			fresh[key] = end + x.ttl
			delete(flying, key)
		}
		end, fetching := flying[key]
		switch {
		case at < fresh[key]:
			takes[n] = 0.01
		case fetching:
			takes[n] = end - at
		default:
			takes[n] = x.network + r.own(x, r.draws(x, 0))
			flying[key] = at + takes[n]
		}
	}
	return takes
}

// own is the work of one call in ms.
func (r *run) own(x *node, draw *rand.Rand) float64 {
	work := lognormal(draw, x.before+x.end, x.sigma) * r.mood
	return max(0, work*x.exec-x.saved)
}

// work runs the body of x from start on and returns when it ends.
func (r *run) work(x *node, span int, start float64, call int) float64 {
	draw := r.draws(x, call)
	pieces := float64(len(x.steps) + 1)
	piece := func(median float64) float64 {
		return max(0, lognormal(draw, median, x.sigma)*r.mood*x.exec/pieces-x.saved/2/pieces)
	}
	at := start + piece(x.before)
	for _, step := range x.steps {
		end := at
		for _, k := range step {
			end = max(end, r.loop(k, span, at))
		}
		at = end + 0.02 // what lies between two calls
	}
	return at + piece(x.end)
}

// loop makes the calls of x that its caller makes, one after the other.
func (r *run) loop(x *node, parent int, at float64) float64 {
	if x.gone >= 0 {
		if x.gone > 0 {
			r.b.span(parent, trace.Producer, r.b.Spans[parent].Service, "send", dur(at), dur(at+x.gone))
		}
		return at + x.gone
	}
	rounds := x.rounds
	if x.joint || x.reused {
		rounds = 1
	}
	for k := range rounds {
		if k > 0 {
			at += 0.05
		}
		at = r.attempt(x, parent, at)
	}
	if x.reused || x.joint {
		at += 0.05 * float64(x.rounds-1)
	}
	return at
}

// attempt makes one call of x, with what the caller does about late and failed ones.
func (r *run) attempt(x *node, parent int, at float64) float64 {
	for try := 1; ; try++ {
		draw := r.draws(x, 1000+r.calls[x.id])
		end, failed := r.one(x, parent, at, draw)
		if !failed || try >= x.tries {
			return end
		}
		at = end + 5
		if x.limit > 0 {
			at = end + 25*draw.Float64()
		}
	}
}

// one sends one attempt, and its copy, and returns when there is an answer.
func (r *run) one(x *node, parent int, at float64, draw *rand.Rand) (end float64, failed bool) {
	endpoint := draw.IntN(x.endpoints)
	if x.drained {
		endpoint = draw.IntN(x.endpoints - 1)
	}
	if x == r.s.queued {
		endpoint = r.s.picked[r.n]
	}
	end, client := r.send(x, parent, at, endpoint)
	if failed = draw.Float64() < x.fails; failed {
		r.b.Spans[client].Failed = true
	}
	if x.limit > 0 && end-at > x.limit {
		end, failed = at+x.limit, true
		r.b.Spans[client].End, r.b.Spans[client].Failed = nanos(end), true
	}
	if x.hedge > 0 && end-at > x.hedge {
		second, _ := r.send(x, parent, at+x.hedge, (endpoint+1+draw.IntN(x.endpoints-1))%x.endpoints)
		end = min(end, second)
	}
	return end, failed
}

// send sends x to one endpoint.
func (r *run) send(x *node, parent int, at float64, endpoint int) (answered float64, client int) {
	call := r.calls[x.id]
	r.calls[x.id]++
	draw := r.draws(x, 5000+call)
	host := x.service + "-" + strconv.Itoa(endpoint)
	attributes := r.attributes(x, host, call)
	if took, ok := r.takes[r.n]; ok && x == r.s.keyed {
		return at + took, -1
	}
	wait := 0.0
	if x == r.s.queued {
		wait = r.waits[r.n]
	}
	client = r.b.span(parent, trace.Client, r.b.Spans[parent].Service, x.op, dur(at), dur(at), attributes...)
	begin := at + x.network/2 + wait
	extra := 0.0
	if x.endpoints > 1 && endpoint == x.endpoints-1 && draw.Float64() < x.tail || draw.Float64() < x.stallAny {
		extra = x.stall * (1 + draw.Float64())
	}
	if x.perByte > 0 {
		extra += x.perByte * r.size(x, call)
	}
	var end float64
	switch {
	case x.query, x == r.s.queued, x == r.s.keyed, len(x.steps) == 0:
		n := call
		if x == r.s.queued || x == r.s.keyed {
			n = 0
		}
		work := r.own(x, r.draws(x, n))
		if x.joint {
			work *= 1 + 0.02*float64(x.rounds)
		}
		end = begin + work + extra
	default:
		end = begin + extra
	}
	if !x.query {
		server := r.b.span(client, trace.Server, x.service, x.op, dur(begin), dur(end))
		r.b.Spans[server].Host = host
		if len(x.steps) > 0 {
			end = r.work(x, server, begin, call) + extra
			r.b.Spans[server].End = nanos(end)
		}
	}
	r.b.Spans[client].End = nanos(end + x.network/2)
	return end + x.network/2, client
}

func (r *run) size(x *node, call int) float64 {
	return lognormal(r.draws(x, 9000+call), x.bytes, 0.8) * (1 - x.cut)
}

func (r *run) attributes(x *node, host string, call int) []string {
	switch {
	case x.query:
		return []string{"db.system.name", "postgresql", "server.address", "db", "db.query.text", "SELECT * FROM " + x.op + " WHERE id = $1", "db.query.parameter.1", strconv.Itoa(r.n*100 + call)}
	case x.twice:
		return []string{"server.address", host, "http.request.method", "GET", "url.full", fmt.Sprintf("http://%s/%d", x.service, r.n)}
	case x == r.s.keyed:
		return []string{"server.address", host, "http.request.method", "GET", "url.full", fmt.Sprintf("http://%s/%d", x.service, r.key(x)), "http.response.status_code", "200"}
	case x.perByte > 0:
		return []string{"server.address", host, "http.response.body.size", strconv.Itoa(int(r.size(x, call)))}
	}
	return []string{"server.address", host}
}
