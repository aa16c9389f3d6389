package limit

import (
	"hash/maphash"
	"math"
	"time"
)

// rate counts calls against Rate. Tenants are kept by a hash with a secret seed: no text of a client's is retained,
// and none can be made to collide on purpose.
//
// Source: the token bucket is Turner, IEEE Communications 24(10), 1986; GCRA is ITU-T I.371, the virtual scheduling
// algorithm. Both let the same calls pass; they differ in what they store.
type rate struct {
	cfg    *Rate
	period float64 // nanoseconds per call
	seed   maphash.Seed
	all    bucket            // everybody, or those that found no place in each
	each   map[uint64]bucket // by hash of the tenant
	ring   []uint64          // the keys of each
	hand   int               // in ring: who is looked at next when there is no room
}

// bucket holds, for the token bucket, the calls that may begin and when that was counted; for GCRA only level, the
// theoretical arrival time in nanoseconds. Both start full.
type bucket struct {
	level float64
	at    int64
}

func newRate(cfg *Rate, at int64) *rate {
	r := &rate{cfg: cfg, period: 1e9 / cfg.PerSecond, seed: maphash.MakeSeed()}
	r.all = r.full(at)
	if cfg.PerTenant {
		r.each = make(map[uint64]bucket)
	}
	return r
}

func (r *rate) full(at int64) bucket {
	if r.cfg.Algorithm == GCRA {
		return bucket{level: float64(at)}
	}
	return bucket{level: float64(r.cfg.Burst), at: at}
}

// take reports whether a call may begin at the given time, and if not, when one may.
func (r *rate) take(at int64, tenant string) (after time.Duration, ok bool) {
	if r.each == nil {
		return r.draw(&r.all, at)
	}
	key := maphash.String(r.seed, tenant)
	b, known := r.each[key]
	if !known {
		if !r.place(key, at) {
			return r.draw(&r.all, at)
		}
		b = r.full(at)
	}
	after, ok = r.draw(&b, at)
	r.each[key] = b
	return after, ok
}

func (r *rate) draw(b *bucket, at int64) (time.Duration, bool) {
	if r.cfg.Algorithm == GCRA {
		tat := max(b.level, float64(at))
		early := tat - float64(at) - r.period*float64(r.cfg.Burst-1)
		if early > 0 {
			return time.Duration(math.Ceil(early)), false
		}
		b.level = tat + r.period
		return 0, true
	}
	r.refill(b, at)
	if b.level < 1-1e-9 {
		return time.Duration(math.Ceil((1 - b.level) * r.period)), false
	}
	b.level--
	return 0, true
}

func (r *rate) refill(b *bucket, at int64) {
	if at > b.at {
		b.level = min(float64(r.cfg.Burst), b.level+float64(at-b.at)/r.period)
		b.at = at
	}
}

// lookedAtTenants is how many are looked at for a new one, so that a flood of new tenants costs little.
const lookedAtTenants = 8

// place gives a new tenant a place, if need be that of one whose allowance is whole again: who is forgotten then loses
// nothing. The tenants are looked at in turn, as the hand of a clock does.
func (r *rate) place(key uint64, at int64) bool {
	if len(r.ring) < r.cfg.Tenants {
		r.ring = append(r.ring, key)
		return true
	}
	for range lookedAtTenants {
		i := r.hand
		r.hand = (r.hand + 1) % len(r.ring)
		if old := r.ring[i]; r.whole(r.each[old], at) {
			delete(r.each, old)
			r.ring[i] = key
			return true
		}
	}
	return false
}

func (r *rate) whole(b bucket, at int64) bool {
	if r.cfg.Algorithm == GCRA {
		return b.level <= float64(at)
	}
	r.refill(&b, at)
	return b.level >= float64(r.cfg.Burst)
}
