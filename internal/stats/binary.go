package stats

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrBinary is a histogram that [Snapshot.UnmarshalBinary] cannot read.
var ErrBinary = errors.New("stats: not a histogram of ours")

// binaryVersion is the first byte; it changes when the buckets do.
const binaryVersion = 1

// MarshalBinary is s in a compact form for storage: a few bytes for each bucket in use. The error is always nil.
func (s Snapshot) MarshalBinary() ([]byte, error) {
	b := make([]byte, 1, 16+2*len(s.counts))
	b[0] = binaryVersion
	b = binary.AppendUvarint(b, uint64(s.sum))
	b = binary.AppendUvarint(b, uint64(s.offset))
	b = binary.AppendUvarint(b, uint64(len(s.counts)))
	for i := 0; i < len(s.counts); i++ {
		b = binary.AppendUvarint(b, s.counts[i])
		if s.counts[i] > 0 {
			continue
		}
		zeros := i // a zero stands for the run of them
		for s.counts[i+1] == 0 {
			i++ // ends: the last bucket is never empty
		}
		b = binary.AppendUvarint(b, uint64(i-zeros))
	}
	return b, nil
}

// UnmarshalBinary sets s to what MarshalBinary wrote. ErrBinary for anything else; s is unchanged then.
func (s *Snapshot) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != binaryVersion {
		return ErrBinary
	}
	b = b[1:]
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	sum, offset, length := next(), next(), next()
	if b == nil || sum > 1<<63-1 || offset > buckets || length > buckets || offset+length > buckets {
		return ErrBinary
	}
	read := Snapshot{offset: int(offset), sum: time.Duration(sum)}
	if length > 0 {
		read.counts = make([]uint64, length)
	}
	for i := 0; i < len(read.counts); i++ {
		if len(b) == 0 {
			return ErrBinary
		}
		c := next()
		read.counts[i] = c
		read.count += c
		if c == 0 {
			if len(b) == 0 {
				return ErrBinary
			}
			i += int(min(next(), buckets))
		}
	}
	if len(b) > 0 || length > 0 && (read.counts[0] == 0 || read.counts[length-1] == 0) {
		return ErrBinary
	}
	*s = read
	return nil
}
