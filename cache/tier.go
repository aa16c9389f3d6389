package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrNotFound is what a Tier returns for a key that it has no answer for.
var ErrNotFound = errors.New("cache: not in the second tier")

// Tier is a second store behind the cache, such as one that several processes share. It is asked on the way of a
// fetch, before the dependency, and filled after it. All methods must return soon after ctx is done, and be safe for
// concurrent use. An error never fails a call: the dependency is asked instead.
type Tier interface {
	// Get returns what Set stored under key, or an error; ErrNotFound when there is nothing.
	Get(ctx context.Context, key string) (Stored, error)
	// Set keeps s under key until s.Until, or less long.
	Set(ctx context.Context, key string, s Stored) error
	// Delete forgets what is stored under keys.
	Delete(ctx context.Context, keys ...string) error
}

// Stored is an answer as it lies in a Tier.
type Stored struct {
	Data     []byte        // as the transport wrote it; not to be changed
	Until    time.Time     // fresh before it
	Took     time.Duration // to fetch it: what EarlyRefresh goes by
	Negative bool          // says that there is nothing

	Age                 time.Duration // when it was stored
	Revalidate, IfError time.Duration // as in Terms
}

// Early reports whether an answer from a Tier shall be fetched anew at now though it is fresh: by Config.EarlyRefresh,
// like one of the cache's own. Across processes it is what keeps all from fetching at the same time.
func (c *Cache) Early(now time.Time, s Stored) bool {
	left := s.Until.Sub(now)
	return left <= 0 || c.early(c.cfg.Load(), left, s.Took)
}

// The form in which Stored is packed: version, flags, Until in ms since 1970, Took in µs, Age, Revalidate and IfError in
// ms, Data.
const (
	packVersion  = 2
	packNegative = 1
	packHeader   = 2 + 5*8
)

// Pack writes s into bytes, for a Tier that keeps nothing else.
func (s Stored) Pack() []byte {
	b := make([]byte, 0, packHeader+len(s.Data))
	var flags byte
	if s.Negative {
		flags = packNegative
	}
	b = append(b, packVersion, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Until.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(s.Took.Microseconds()))
	for _, d := range []time.Duration{s.Age, s.Revalidate, s.IfError} {
		if d < 0 {
			d = -time.Millisecond // any negative time means the same
		}
		b = binary.BigEndian.AppendUint64(b, uint64(d.Milliseconds()))
	}
	return append(b, s.Data...)
}

// Unpack reads what Pack wrote. Data is a part of b. Whatever else b may be, it is an error.
func Unpack(b []byte) (Stored, error) {
	if len(b) < packHeader || b[0] != packVersion || b[1]&^packNegative != 0 {
		return Stored{}, fmt.Errorf("cache: %d bytes in the second tier are no answer of version %d", len(b), packVersion)
	}
	until := binary.BigEndian.Uint64(b[2:])
	took := binary.BigEndian.Uint64(b[10:])
	var more [3]time.Duration
	for i := range more {
		ms := int64(binary.BigEndian.Uint64(b[18+8*i:]))
		if ms < -1 || ms > math.MaxInt64/int64(time.Millisecond) {
			return Stored{}, errors.New("cache: an answer in the second tier has times out of range")
		}
		more[i] = time.Duration(ms) * time.Millisecond
	}
	if until > math.MaxInt64 || took > uint64(math.MaxInt64/time.Microsecond) {
		return Stored{}, errors.New("cache: an answer in the second tier has times out of range")
	}
	return Stored{
		Data:       b[packHeader:],
		Until:      time.UnixMilli(int64(until)),
		Took:       time.Duration(took) * time.Microsecond,
		Negative:   b[1]&packNegative != 0,
		Age:        max(more[0], 0),
		Revalidate: more[1],
		IfError:    more[2],
	}, nil
}
