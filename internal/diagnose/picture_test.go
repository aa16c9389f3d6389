package diagnose

import (
	"fmt"
	"math"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// shopTraces are n traces in which a query takes longer and longer.
func shopTraces(t *testing.T, n int) []trace.Trace {
	t.Helper()
	var all []trace.Trace
	for i := range n {
		query := 10 + i*100/n
		one, err := trace.Parse(fmt.Sprintf(`
			"GET /cart" 0ms %dms service=shop kind=server trace=t%d
			  price 1ms 9ms kind=client
			    "GET /price" 2ms 8ms service=price kind=server
			  "SELECT items" 10ms %dms kind=client db.system.name=postgresql
		`, 15+query, i, 10+query))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// TestAPicturePartitionsTheTime: at each level the children of a node take no more than it, and the root takes all.
func TestAPicturePartitionsTheTime(t *testing.T) {
	traces := shopTraces(t, 200)
	pictures := Pictures(traces, Options{}, 5)
	if len(pictures) != 1 || pictures[0].Service != "shop" || pictures[0].Operation != "GET /cart" {
		t.Fatalf("%+v", pictures)
	}
	p := pictures[0]
	for level := range p.Levels {
		below := make([]float64, len(p.Nodes))
		for i, n := range p.Nodes {
			if (n.Parent < 0) != (i == 0) || n.Parent >= i {
				t.Fatalf("node %d hangs below %d", i, n.Parent)
			}
			if i > 0 {
				below[n.Parent] += n.MS[level]
			}
		}
		for i, n := range p.Nodes {
			if below[i] > n.MS[level]+0.01 {
				t.Errorf("level %v: below %q lie %v ms of %v", p.Levels[level], n.Operation, below[i], n.MS[level])
			}
		}
	}
	if got := p.Nodes[0].MS[5]; math.Abs(got-75) > 1 {
		t.Errorf("a typical trace takes %v ms", got)
	}
	found := false
	for _, n := range p.Nodes {
		if n.Segment == trace.SegDatabase {
			found = true
			if n.MS[0] > 20 || n.MS[13] < 100 {
				t.Errorf("the query takes %v ms", n.MS)
			}
		}
	}
	if !found {
		t.Errorf("no query in %+v", p.Nodes)
	}
	if p.Typical == nil || p.Slow == nil || p.Slow.DurationMS < 1.5*p.Typical.DurationMS || len(p.Slow.Spans) != 4 {
		t.Fatalf("typical %+v, slow %+v", p.Typical, p.Slow)
	}
	if root := p.Slow.Spans[0]; root.Depth != 0 || root.Operation != "GET /cart" || len(root.Critical) == 0 {
		t.Errorf("%+v", root)
	}
}

// TestAPictureIsBounded: what is small is joined, what is too much is cut and counted.
func TestAPictureIsBounded(t *testing.T) {
	one := trace.Trace{ID: "t", Spans: []trace.Span{{TraceID: "t", ID: "root", Service: "a", Name: "root", Start: 0, End: 1e9}}}
	for i := range 2000 {
		at := int64(i) * 5e5
		one.Spans = append(one.Spans, trace.Span{TraceID: "t", ID: fmt.Sprint(i), Parent: "root", Service: fmt.Sprint("s", i), Name: "op", Start: at, End: at + 4e5})
	}
	p := Pictures([]trace.Trace{one}, Options{}, 1)[0]
	if len(p.Nodes) > 2*maxPathNodes || p.Slow != nil || len(p.Typical.Spans) != maxBars || p.Typical.Cut != 2001-maxBars {
		t.Errorf("%d nodes, %d bars, %d cut", len(p.Nodes), len(p.Typical.Spans), p.Typical.Cut)
	}
	joined := 0.0
	for _, n := range p.Nodes {
		if n.Operation == other {
			joined += n.MS[0]
		}
	}
	if math.Abs(joined-800) > 1 {
		t.Errorf("%v ms are joined", joined)
	}
	if got := Pictures(nil, Options{}, 3); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}
