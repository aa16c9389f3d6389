package limit

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/longpole/longpole/call"
)

// Why a call is refused. They are constant values: to refuse costs no allocation.
var (
	ErrShed   = errors.New("limit: too many calls")            // no permit, no room to wait, or a priority that is shed now
	ErrRate   = errors.New("limit: too many calls per second") // see Ticket.RetryAfter
	ErrDoomed = errors.New("limit: too little time left")      // the deadline comes before an answer usually does
	ErrAge    = errors.New("limit: waited too long")           // for a permit
	errGone   = errors.New("limit: canceled while waiting")    // nobody reads it
)

// Exempt is the priority of health checks and of what else must pass: such a call is never refused and never waits,
// takes no permit and no rate, and nothing is learned from it. Every priority above call.Critical is exempt.
const Exempt = call.Critical + 1

// shedMemory is how long after a refusal Shedding still reports it.
const shedMemory = int64(time.Second)

// Counts is what a Limiter has done since it began. Each call that is not exempt is counted once, as soon as it is
// decided; Queued counts calls that waited besides.
type Counts struct {
	Admitted, Queued              uint64
	Shed, Rate, Doomed, Age, Gone uint64 // refused with ErrShed, ErrRate, ErrDoomed, ErrAge; canceled while waiting
}

// Limiter admits calls. All methods are safe for concurrent use. A call that is admitted or refused at once costs no
// allocation; one that waits costs two. It fails open: what it knows nothing about is admitted up to Config.Limit.
type Limiter struct {
	mu       sync.Mutex
	cfg      Config
	epoch    time.Time // of the int64 nanoseconds below; monotonic when now is
	at       int64     // the latest now
	alg      algorithm
	limit    int
	inFlight int
	queue    queue
	rate     *rate
	reject   rejector
	seed     maphash.Seed // of the tenants' slots
	service  service
	left     float64 // time that calls have left on arrival, smoothed; 0 = none had a deadline yet
	shedAt   int64   // of the latest refusal for load, plus shedMemory
	area     float64 // in flight, integrated over nanoseconds
	pressure pressure
	counts   Counts
}

// New returns a limiter that knows nothing yet. c must be valid.
func New(c Config) *Limiter {
	l := &Limiter{seed: maphash.MakeSeed()}
	l.configure(c.WithDefaults())
	return l
}

// Reconfigure swaps the settings and keeps what was learned, as far as it applies: the limit, clamped to Min..Max,
// unless the new algorithm is fixed; service times; priorities; the rate's allowances while Rate is the same. When the
// queue is taken away, those that wait are refused.
func (l *Limiter) Reconfigure(now time.Time, c Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	l.configure(c.WithDefaults())
	if c.Queue == nil {
		for w, _ := l.queue.pop(false); w != nil; w, _ = l.queue.pop(false) {
			l.turnAway(w, ErrShed)
		}
	}
	l.dispatch()
}

func (l *Limiter) configure(c Config) {
	old := l.cfg
	l.cfg = c
	if l.alg == nil || old.Algorithm != c.Algorithm || c.Algorithm == Fixed {
		start := l.limit
		if l.alg == nil || c.Algorithm == Fixed || old.Algorithm == None {
			start = c.Limit
		}
		l.alg = newAlgorithm(&c, min(max(start, c.Min), c.Max))
	}
	l.alg.bounds(&c)
	l.limit = l.alg.limit()
	switch {
	case c.Rate == nil:
		l.rate = nil
	case l.rate == nil || *l.rate.cfg != *c.Rate:
		l.rate = newRate(c.Rate, l.at)
	}
}

// Ticket is the answer to one call that asked to be admitted. It is decided at once, or its call waits: until Decided
// is closed, and no longer than until Expiry.
//
// A Ticket is a value; copies stand for the same call. An admitted one must be given back once, with Done or Cancel;
// one that waits must be decided first, or be given up with Cancel. A refused one needs nothing. The zero Ticket is
// neither admitted nor refused, and Done and Cancel ignore it.
type Ticket struct {
	w      *waiter // nil when it was decided at once
	err    error
	after  time.Duration
	expiry time.Time
	ok     bool // admitted at once
	exempt bool
}

// Admitted reports whether the call may begin.
func (t Ticket) Admitted() bool {
	if t.w == nil {
		return t.ok
	}
	return t.w.state.Load() == admitted
}

// Refused is why the call may not begin: ErrShed, ErrRate, ErrDoomed or ErrAge; nil when it is admitted or waits.
func (t Ticket) Refused() error {
	if t.w == nil {
		return t.err
	}
	if t.w.state.Load() == refused {
		return t.w.err
	}
	return nil
}

// Waiting reports whether the call is neither admitted nor refused yet.
func (t Ticket) Waiting() bool { return t.w != nil && t.w.state.Load() == waiting }

// Decided is closed when a call that waited is admitted or refused. It is nil for a ticket that was decided at once.
func (t Ticket) Decided() <-chan struct{} {
	if t.w == nil {
		return nil
	}
	return t.w.decided
}

// Expiry is when a call that still waits is to be given to Expire. Zero for a ticket that was decided at once.
func (t Ticket) Expiry() time.Time { return t.expiry }

// RetryAfter is how long after an ErrRate a call would pass, if no other came first; 0 when that is not known.
func (t Ticket) RetryAfter() time.Duration { return t.after }

// Admit asks to begin a call at now that is of no use after deadline (zero = it always is). See Ticket for what
// follows.
func (l *Limiter) Admit(now time.Time, info call.Info, deadline time.Time) Ticket {
	if info.Priority > call.Critical {
		return Ticket{ok: true, exempt: true}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.advance(now)
	if l.rate != nil {
		if after, ok := l.rate.take(at, info.Tenant); !ok {
			l.counts.Rate++
			return Ticket{err: ErrRate, after: after}
		}
	}
	left := noTimeout
	if !deadline.IsZero() {
		left = int64(deadline.Sub(now))
		l.left += (float64(max(left, 0)) - l.left) * l.weight()
	}
	if l.service.doomed(at, left, 0) {
		l.counts.Doomed++
		return Ticket{err: ErrDoomed}
	}
	if l.cfg.Algorithm == None {
		return l.begin()
	}
	r, slot := rank(&info), l.slot(info.Tenant)
	l.reject.saw(r, slot)
	if l.reject.refuses(r, slot) {
		l.alg.blocked()
		return l.shed()
	}
	l.reject.in++
	if l.inFlight < l.limit {
		return l.begin()
	}
	l.reject.turned++
	l.alg.blocked()
	return l.enqueue(now, &info, r, left)
}

func (l *Limiter) slot(tenant string) uint8 {
	if tenant == "" {
		return 0
	}
	return uint8(maphash.String(l.seed, tenant))
}

// weight is that of a new value in a smoothed one: all at first, 1 in 64 later.
func (l *Limiter) weight() float64 {
	if l.left == 0 {
		return 1
	}
	return 1.0 / 64
}

func (l *Limiter) begin() Ticket {
	l.inFlight++
	l.pressure.saw(l.inFlight)
	l.reject.out++
	l.counts.Admitted++
	return Ticket{ok: true}
}

func (l *Limiter) shed() Ticket {
	l.counts.Shed++
	l.shedAt = l.at + shedMemory
	return Ticket{err: ErrShed}
}

func (l *Limiter) enqueue(now time.Time, info *call.Info, r int, left int64) Ticket {
	q := l.cfg.Queue
	if q == nil {
		return l.shed()
	}
	t := r / cohorts
	usual := l.service.usual(l.at)
	wait := int64(l.queue.ahead(t, l.lifo())+1) * usual / int64(max(l.limit, 1))
	if l.service.doomed(l.at, left, wait) {
		l.counts.Doomed++
		l.shedAt = l.at + shedMemory
		return Ticket{err: ErrDoomed}
	}
	if l.queue.waiting >= l.length() {
		victim := l.queue.displace(r, info.Tenant, l.lifo())
		if victim == nil {
			return l.shed()
		}
		l.turnAway(victim, ErrShed)
	}
	w := &waiter{since: l.at, decided: make(chan struct{}), rank: r, deadline: noTimeout, age: l.at + l.maxAge(left)}
	if left != noTimeout {
		w.deadline = l.at + left
		w.age = min(w.age, w.deadline-usual)
	}
	l.queue.add(w, t, info.Tenant, l.cfg.Tenants)
	l.pressure.saw(l.inFlight + l.queue.waiting)
	l.counts.Queued++
	return Ticket{w: w, expiry: now.Add(time.Duration(w.age - l.at))}
}

func (l *Limiter) length() int {
	if n := l.cfg.Queue.Length; n > 0 {
		return n
	}
	// A probe is brief: those that wait sit it out, and so do those whose permits it withholds.
	settled := l.alg.settled()
	return max(10, settled/2) + max(0, settled-l.limit)
}

func (l *Limiter) lifo() bool {
	n := l.cfg.Queue.LIFOAbove
	if n == 0 {
		n = l.length() / 2
	}
	return l.queue.waiting > n
}

func (l *Limiter) maxAge(left int64) int64 {
	switch {
	case l.cfg.Queue.MaxAge > 0:
		return int64(l.cfg.Queue.MaxAge)
	case left != noTimeout:
		return left / 3
	}
	return int64(time.Second)
}

func (l *Limiter) target() int64 {
	switch {
	case l.cfg.Queue.Target > 0:
		return int64(l.cfg.Queue.Target)
	case l.left > 0:
		return max(int64(l.left*l.cfg.Queue.TargetShare), int64(time.Millisecond))
	}
	return int64(l.cfg.Queue.TargetShare * float64(time.Second))
}

// decide ends the wait of w, which is no longer in the queue.
func (w *waiter) decide(state int32, err error) {
	w.err = err
	w.state.Store(state)
	close(w.decided)
}

func (l *Limiter) turnAway(w *waiter, err error) {
	switch {
	case errors.Is(err, ErrDoomed):
		l.counts.Doomed++
	case errors.Is(err, ErrAge):
		l.counts.Age++
	case errors.Is(err, errGone):
		l.counts.Gone++
	default:
		l.counts.Shed++
	}
	if !errors.Is(err, errGone) {
		l.shedAt = l.at + shedMemory
	}
	w.decide(refused, err)
}

// dispatch gives free permits to those that wait.
func (l *Limiter) dispatch() {
	for l.queue.waiting > 0 && l.inFlight < l.limit {
		w, v := l.queue.pop(l.lifo())
		drop := v.codel.drops(l.at, l.at-w.since, l.target())
		switch {
		case l.service.doomed(l.at, w.left(l.at), 0):
			l.turnAway(w, ErrDoomed)
		case drop || l.at >= w.age:
			l.turnAway(w, ErrAge)
		default:
			l.inFlight++
			l.reject.out++
			l.counts.Admitted++
			w.decide(admitted, nil)
		}
	}
}

func (w *waiter) left(at int64) int64 {
	if w.deadline == noTimeout {
		return noTimeout
	}
	return w.deadline - at
}

// Expire decides a call that waited until Expiry: it is refused with ErrAge, unless it was decided in the meantime.
// Before Expiry it does nothing.
func (l *Limiter) Expire(now time.Time, t Ticket) {
	if t.w == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	if t.w.line == nil || now.Before(t.expiry) {
		return
	}
	l.queue.remove(t.w)
	l.turnAway(t.w, ErrAge)
}

// Cancel gives up a call: one that waits leaves the queue, one that was admitted but never made gives its permit back.
// Nothing is learned from it. A refused ticket is left alone.
func (l *Limiter) Cancel(now time.Time, t Ticket) {
	if t.w == nil || t.w.state.Load() != waiting {
		l.Done(now, t, call.Outcome{Class: call.Canceled})
		return
	}
	l.mu.Lock()
	if t.w.line == nil { // decided while we came for the lock
		l.mu.Unlock()
		l.Done(now, t, call.Outcome{Class: call.Canceled})
		return
	}
	defer l.mu.Unlock()
	l.advance(now)
	l.queue.remove(t.w)
	l.turnAway(t.w, errGone)
}

// Done ends an admitted call at now: its permit goes to the next, and the limit learns from out.
//
// Successes tell how long the dependency takes. Drops are a Timeout, a Refused, a Server with Pushback, and a success
// slower than Config.MaxLatency. All others tell nothing: an error or a canceled call may end much sooner than an answer.
func (l *Limiter) Done(now time.Time, t Ticket, out call.Outcome) {
	if t.exempt || !t.Admitted() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.advance(now)
	drop := out.Class == call.Timeout || out.Class == call.Refused || out.Class == call.Server && out.Pushback > 0
	ok := out.Class == call.OK && out.Latency > 0
	if ok {
		l.service.add(at, int64(out.Latency))
		drop = l.cfg.MaxLatency > 0 && out.Latency > l.cfg.MaxLatency
	}
	if ok || drop {
		l.alg.observe(sample{at: at, took: int64(out.Latency), inFlight: l.inFlight, area: l.area, drop: drop})
		l.limit = l.alg.limit()
	}
	l.inFlight--
	l.dispatch()
}

// advance brings the clock and all that is integrated over it to now, and ends the controller's period. A now before
// the latest one counts as the latest.
func (l *Limiter) advance(now time.Time) int64 {
	if l.epoch.IsZero() {
		l.epoch = now
		l.reject.tick = int64(period)
	}
	at := int64(now.Sub(l.epoch))
	if at <= l.at {
		return l.at
	}
	l.area += float64(at-l.at) * float64(l.inFlight)
	l.at = at
	if at >= l.reject.tick {
		l.tick(at)
	}
	return at
}

func (l *Limiter) tick(at int64) {
	r := &l.reject
	length := float64(at-r.tick) + period
	// Permits that a probe withholds are free all the same: its scarcity is no overload.
	free := max(float64(l.alg.settled())-(l.area-r.area)/length, 0)
	r.step(length, free, float64(l.service.usual(at)), l.queue.waiting)
	r.area, r.tick = l.area, at+int64(period)
	l.pressure.step(length, l.inFlight+l.queue.waiting, l.limit)
}

// Limit is how many calls may be in flight now.
func (l *Limiter) Limit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// InFlight is how many permits are out.
func (l *Limiter) InFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight
}

// Queued is how many calls wait.
func (l *Limiter) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.waiting
}

// Shedding reports whether calls were refused for load within the last second, or are being refused by priority: no
// time for hedges. A refusal by Rate is none.
func (l *Limiter) Shedding(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.advance(now)
	return at < l.shedAt || l.reject.share > 0
}

// Pressure is the share of the limit that is in use or waited for at the peaks of each half second, smoothed over some
// five seconds; above 1 calls wait. It is what to scale the dependency by: as traffic grows it passes 0.8 before the
// first call is refused.
func (l *Limiter) Pressure(now time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	return l.pressure.value()
}

// Counts is what was decided so far.
func (l *Limiter) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}
