package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestWhatIsEncodedComesBack(t *testing.T) {
	policies := map[Level]*Policy{Fast: New(Config{Compress: &Compress{}}), Balanced: New(Config{Compress: &Compress{Level: Balanced}})}
	rapid.Check(t, func(t *rapid.T) {
		p := policies[rapid.SampledFrom([]Level{Fast, Balanced}).Draw(t, "level")]
		c := rapid.SampledFrom(all).Draw(t, "coding")
		var plain, sent bytes.Buffer
		if !p.pool.reserve() {
			t.Fatal("no room")
		}
		e := p.Encode(&sent, c)
		for range rapid.IntRange(0, 8).Draw(t, "parts") {
			part := []byte(strings.Repeat(rapid.StringN(0, 40, 80).Draw(t, "text"), rapid.IntRange(0, 2000).Draw(t, "times")))
			plain.Write(part)
			if _, err := e.Write(part); err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "flush") {
				if err := e.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(e.Close(false), e.Close(false)); err != nil {
			t.Fatal(err)
		}
		got, err := Read(sent.Bytes(), c, 10<<20)
		if err != nil || !bytes.Equal(got, plain.Bytes()) {
			t.Fatalf("%s: %d bytes came back of %d: %v", c, len(got), plain.Len(), err)
		}
	})
	for _, p := range policies {
		if n := p.pool.running.Load(); n != 0 {
			t.Errorf("%d encoders run", n)
		}
	}
}

func TestAFlushSendsWhatWasWritten(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	for _, c := range all {
		var sent bytes.Buffer
		p.pool.reserve()
		e := p.Encode(&sent, c)
		written := ""
		for _, text := range []string{"first", "second", strings.Repeat("third", 20_000)} {
			written += text
			if _, err := e.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
			r, end, err := streaming(bytes.NewReader(sent.Bytes()), c)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(written))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != written {
				t.Errorf("%s: after the flush of %d bytes %d are there: %v", c, len(written), len(got), err)
			}
			end()
		}
		_ = e.Close(true)
	}
}

func TestAnAbandonedBodyIsNoWholeOne(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	for _, c := range all {
		var sent bytes.Buffer
		p.pool.reserve()
		e := p.Encode(&sent, c)
		_, _ = e.Write([]byte(strings.Repeat("text ", 1000)))
		_ = e.Flush()
		_ = e.Close(true)
		if _, err := Read(sent.Bytes(), c, 1<<20); err == nil {
			t.Errorf("%s: the part was taken for the whole", c)
		}
		if _, err := e.Write(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", c, err)
		}
		if err := e.Flush(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestOnlySoManyEncodersRunAtOnce(t *testing.T) {
	p := New(Config{Compress: &Compress{AtOnce: 2}})
	var encoders []*Encoder
	for range 2 {
		if !p.pool.reserve() {
			t.Fatal("no room")
		}
		encoders = append(encoders, p.Encode(io.Discard, Gzip))
	}
	if p.pool.reserve() || p.Counters().Refused != 1 {
		t.Errorf("a third found room: %+v", p.Counters())
	}
	for _, e := range encoders {
		_ = e.Close(false)
	}
	if !p.pool.reserve() {
		t.Error("no room after they ended")
	}
}

func TestEncodersOfManyGoroutinesDoNotMix(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	var run sync.WaitGroup
	for i := range 8 {
		run.Go(func() {
			for range 20 {
				text := strings.Repeat(fmt.Sprint("text of ", i, " "), 500)
				var sent bytes.Buffer
				if !p.pool.reserve() {
					t.Error("no room")
					return
				}
				e := p.Encode(&sent, all[i%3])
				_, _ = io.WriteString(e, text)
				_ = e.Close(false)
				if got, err := Read(sent.Bytes(), all[i%3], 1<<20); err != nil || string(got) != text {
					t.Errorf("%d: got %d bytes, %v", i, len(got), err)
				}
			}
		})
	}
	run.Wait()
	c := p.Counters()
	if c.Encoded != 160 || c.InBytes == 0 || c.OutBytes >= c.InBytes {
		t.Errorf("%+v", c)
	}
}

func TestABombIsNotUnpacked(t *testing.T) {
	p := New(Config{Compress: &Compress{}})
	for _, c := range all {
		var sent bytes.Buffer
		p.pool.reserve()
		e := p.Encode(&sent, c)
		for range 64 {
			_, _ = e.Write(make([]byte, 1<<20))
		}
		_ = e.Close(false)
		if sent.Len() > 1<<20 {
			t.Fatalf("%s: %d bytes", c, sent.Len())
		}
		if _, err := Read(sent.Bytes(), c, 1<<20); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", c, err)
		}
	}
	if _, err := Read(nil, "deflate", 1); !errors.Is(err, ErrCoding) {
		t.Error(err)
	}
}

func TestSizesAreReadBackWithinTheirError(t *testing.T) {
	var s Sizes
	if got := s.Snapshot().Quantile(0.5); got != 0 {
		t.Errorf("empty: %d", got)
	}
	for _, n := range []int64{0, 1, 2, 100, 1500, 64 << 10, 10 << 20, 3 << 30} {
		var s Sizes
		s.Record(n)
		got := s.Snapshot().Quantile(1)
		if diff := float64(got - n); diff > 0.006*float64(n) || -diff > 0.006*float64(n) {
			t.Errorf("%d is read as %d", n, got)
		}
		if s.Snapshot().Sum() != n || s.Snapshot().Count() != 1 {
			t.Errorf("%d: sum %d", n, s.Snapshot().Sum())
		}
	}
	s.Record(-5)
	s.Record(1 << 62)
	before := s.Snapshot()
	s.Record(1000)
	if since := s.Snapshot().Sub(before); since.Count() != 1 || since.Merge(before).Count() != 3 {
		t.Errorf("since: %d", since.Count())
	}
	for bound, n := range s.Snapshot().Sub(before).Buckets() {
		if n != 1 || bound < 1000 || bound > 1012 {
			t.Errorf("%d up to %v", n, bound)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x1f\x8b"), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, c byte) {
		if out, err := Read(b, all[int(c)%3], 4096); err == nil && len(out) > 4096 {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// streaming decodes as bytes come.
func streaming(r io.Reader, c Coding) (io.Reader, func(), error) {
	switch c {
	case Zstd:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	case Brotli:
		return brotli.NewReader(r), func() {}, nil
	}
	d, err := gzip.NewReader(r)
	return d, func() {}, err
}
