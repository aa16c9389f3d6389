package diagnose

import (
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// atOnceEach calls do on as many goroutines as there are calls, the last first.
func atOnceEach(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(n - 1 - i) })
	}
	wg.Wait()
}

// ill is traffic in which much is wrong, so that most rules have to look at what they share.
func ill() []trace.Trace {
	traces := traffic(5, 6, 90)
	for i := range traces {
		for k := range traces[i].Spans {
			s := &traces[i].Spans[k]
			if i%20 == 0 {
				s.Start, s.End = 3*s.Start, 3*s.Start+40*(s.End-s.Start)
			}
			s.Failed = i%7 == 0 && s.Kind == trace.Client
			s.Attributes = append(slices.Clip(s.Attributes), attribute("url.path", "/p/%d", i%3), attribute("http.request.method", "GET"))
		}
	}
	return traces
}

func TestReportDoesNotDependOnHowManyWorkAtOnce(t *testing.T) {
	traces := ill()
	want := Run(traces, Options{})
	if got := Run(traces, Options{Clock: ClockOptions{Each: atOnceEach}}); !reflect.DeepEqual(got, want) {
		t.Errorf("at once:\n%+v\none after the other:\n%+v", got, want)
	}
	findings := 0
	for _, r := range want.Routes {
		findings += len(r.Findings)
	}
	if len(shardsOf(len(traces))) < 4 || findings < 5 {
		t.Errorf("%d shards and %d findings put little to the test", len(shardsOf(len(traces))), findings)
	}
}

func TestShardsAreAllTraces(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 127, 128, 1000, 1 << 20} {
		at := 0
		for _, x := range shardsOf(n) {
			if x.from != at || x.to < x.from {
				t.Errorf("%d traces: a shard is from %d to %d, after %d", n, x.from, x.to, at)
			}
			at = x.to
		}
		if at != n {
			t.Errorf("%d of %d traces", at, n)
		}
	}
}

// Spans beyond the bounds of the layouts are read as they are, with the same answers.
func TestLayoutsChangeNoAnswer(t *testing.T) {
	spans := [][]trace.Attribute{
		nil,
		{{Key: "http.status_code", Value: "503"}},
		{{Key: "db.statement", Value: "SELECT 1 FROM t WHERE id = 7"}, {Key: "db.query.text", Value: "SELECT 2 FROM t"}},
		{{Key: "db.query.text", Value: ""}, {Key: "http.method", Value: "GET"}, {Key: "http.target", Value: "/a"}},
		{{Key: "http.response.body.size", Value: "17"}, {Key: "http.request.body.size", Value: "4e3"}, {Key: "grpc.status_code", Value: "UNAVAILABLE"}},
		{{Key: "error.type", Value: "context canceled"}, {Key: "retry.count", Value: "2"}, {Key: "telemetry.sdk.language", Value: "webjs"}},
		{{Key: "db.query.text", Value: "select * from t for UPDATE"}},
	}
	full := newLayouts()
	full.n = maxLayouts
	for _, o := range []*layouts{newLayouts(), full} {
		for n, attributes := range spans {
			tr := trace.Trace{Spans: []trace.Span{{ID: strconv.Itoa(n), Service: "a", Name: "b", End: 1, Attributes: attributes}}}
			alone := Build(tr, ClockOptions{})
			b := builder{layouts: o}
			got := b.build(tr, ClockOptions{})
			tell := func(x *Tree) []any {
				return []any{x.failed(0), x.resent(0), x.readKey(0), x.size(0), x.canceled(0), x.tell(0), x.instance(0), x.path(0), x.complaint(0)}
			}
			if a, b := tell(alone), tell(got); !reflect.DeepEqual(a, b) {
				t.Errorf("%v: %v, alone %v", attributes, b, a)
			}
		}
	}
}
