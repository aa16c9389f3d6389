package payload

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// document is JSON as services send it: repetitive in its names, less so in its values.
func document(n int) []byte {
	var b bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	b.WriteByte('[')
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":%d,"name":"product %d","price":%d.%02d,"tags":["a%d","b"],"description":"a fine thing of %d parts"},`,
			r.IntN(1e6), r.IntN(500), r.IntN(100), r.IntN(100), r.IntN(20), r.IntN(1000))
	}
	return b.Bytes()[:n]
}

func BenchmarkEncode(b *testing.B) {
	for _, level := range []Level{Fast, Balanced} {
		p := New(Config{Compress: &Compress{Level: level}})
		for _, n := range []int{4 << 10, 128 << 10} {
			text := document(n)
			for _, c := range all {
				b.Run(fmt.Sprintf("%s/%dKiB/%s", level, n>>10, c), func(b *testing.B) {
					b.SetBytes(int64(n))
					b.ReportAllocs()
					var out counting
					out.Writer = io.Discard
					for range b.N {
						p.pool.reserve()
						e := p.Encode(&out, c)
						_, _ = e.Write(text)
						_ = e.Close(false)
					}
					b.ReportMetric(float64(out.n)/float64(b.N)/float64(n), "of-size")
				})
			}
		}
	}
}

// BenchmarkNewEncoder tells by its bytes per operation what an encoder holds.
func BenchmarkNewEncoder(b *testing.B) {
	text := document(512 << 10)
	for _, c := range all {
		b.Run(string(c), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				e := newEncoder(c, Fast)
				e.Reset(io.Discard)
				_, _ = e.Write(text)
				_ = e.Close()
			}
		})
	}
}
