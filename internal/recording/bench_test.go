package recording

import (
	"testing"
	"time"
)

func BenchmarkWrite(b *testing.B) {
	w, err := NewWriter(Files{Dir: b.TempDir()}, Scrub{HashIDs: true})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	e := Entry{Route: "orders", Method: "GET", Host: "shop.example", Path: "/orders/8013/lines", Query: "page=2", Header: map[string][]string{"Accept": {"application/json"}}, Status: 200, Latency: 5e6}
	b.ReportAllocs()
	for i := range b.N {
		if err := w.Write(t0.Add(time.Duration(i)), e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(w.written)/float64(b.N), "bytes/entry")
}
