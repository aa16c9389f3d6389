package diagnose

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/longpole/longpole/internal/trace"
)

// shareable is attributes that tell a span's place, or its marks, with values that do and values that do not.
var shareable = []struct {
	key    string
	values []string
}{
	{"http.response.status_code", []string{"200", "404", "503", "odd"}},
	{"rpc.grpc.status_code", []string{"0", "14"}},
	{"http.request.resend_count", []string{"0", "2"}},
	{"http.request.method", []string{"GET", "POST"}},
	{"url.path", []string{"/a", "/b", "/c"}},
	{"enduser.id", []string{"7", ""}},
	{"db.system", []string{"redis", "mysql"}},
	{"db.query.text", []string{"SELECT a FROM b WHERE c = 1", "insert into b values (1)", " (select 2)", "HGETALL cart:1"}},
	{"component", []string{"proxy", "jdbc"}},
	{"peer.service", []string{"far", "redis-far"}},
	{"server.address", []string{"far.local", "db.local"}},
	{"messaging.system", []string{"kafka"}},
	{"http.response.body.size", []string{"10", "300000", "1e+06"}},
	{"telemetry.sdk.language", []string{"webjs", "go"}},
}

// drawShared is what spans of one kind share, and a maker of what each has of its own.
func drawShared(t *rapid.T) (*trace.Shared, func() []trace.Attribute) {
	picked := rapid.SliceOfNDistinct(rapid.IntRange(0, len(shareable)-1), 0, 6, rapid.ID[int]).Draw(t, "keys")
	differ := rapid.Uint64Range(0, 1<<6-1).Draw(t, "differ")
	all := make([]trace.Attribute, len(picked))
	keys := &trace.Keys{Hash: rapid.Uint64().Draw(t, "hash")}
	value := func(i int) trace.Attribute {
		x := shareable[picked[i]]
		return trace.Attribute{Key: x.key, Value: rapid.SampledFrom(x.values).Draw(t, "value")}
	}
	for i := range all {
		all[i] = value(i)
		keys.List = append(keys.List, all[i].Key)
	}
	return trace.Share(all, differ, keys), func() (own []trace.Attribute) {
		for i := range all {
			if differ>>i&1 != 0 {
				own = append(own, value(i))
			}
		}
		return own
	}
}

// drawFamily is traces whose spans share attributes of a few kinds.
func drawFamily(t *rapid.T) []trace.Trace {
	type kind struct {
		shared *trace.Shared
		own    func() []trace.Attribute
	}
	var known []kind
	for range rapid.IntRange(1, 4).Draw(t, "shared") {
		shared, own := drawShared(t)
		known = append(known, kind{shared, own})
	}
	traces := make([]trace.Trace, rapid.IntRange(1, 8).Draw(t, "traces"))
	for i := range traces {
		traces[i].ID = fmt.Sprint("t", i)
		for k := range rapid.IntRange(1, 10).Draw(t, "spans") {
			of := rapid.SampledFrom(known).Draw(t, "of")
			s := trace.Span{
				TraceID: traces[i].ID, ID: fmt.Sprint(k), Kind: trace.Kind(rapid.IntRange(0, 5).Draw(t, "kind")),
				Service: rapid.SampledFrom([]string{"shop", "gateway", "redis"}).Draw(t, "service"), Name: rapid.SampledFrom([]string{"get", "SELECT b"}).Draw(t, "name"),
				Failed: rapid.IntRange(0, 4).Draw(t, "failed") == 0, End: 1000, Shared: of.shared, Attributes: of.own(),
			}
			if k > 0 {
				s.Parent = fmt.Sprint(rapid.IntRange(0, k-1).Draw(t, "parent"))
			}
			traces[i].Spans = append(traces[i].Spans, s)
		}
	}
	return traces
}

// What spans share is read once for all of them. It must make no difference.
func TestSharedAttributesAreReadAsIfEachSpanHadItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var trees []*Tree
		for range 20 { // to find a span of each kind beside another
			trees = append(trees, Trees(drawFamily(t), ClockOptions{})...)
		}
		for _, tree := range trees {
			alone := *tree
			alone.layouts, alone.marks = nil, make([]marks, len(tree.Spans)) // nothing is known
			for i := range tree.Spans {
				if got, want := tree.marks[i], alone.read(i); got != want {
					t.Fatalf("marks %b, want %b, of %+v", got, want, tree.Spans[i])
				}
				if got, want := locate(tree, i), findPlace(&alone, i, nil); got != want {
					t.Fatalf("place %v, want %v, of %+v", got, want, tree.Spans[i])
				}
			}
		}
	})
}

func TestManyKindsOfSharedAttributesAreReadAll(t *testing.T) {
	const kinds = 5000 // more than are remembered
	traces := make([]trace.Trace, kinds)
	for i := range traces {
		id := fmt.Sprint("t", i)
		shared := trace.Share([]trace.Attribute{{Key: "db.system", Value: "redis"}, {Key: "n", Value: id}}, 0, nil)
		traces[i] = trace.Trace{ID: id, Spans: []trace.Span{{TraceID: id, ID: "1", Kind: trace.Client, Service: "shop", Name: "get", End: 1000 + int64(i), Shared: shared}}}
	}
	r := Run(traces, Options{})
	if len(r.Routes) != 1 || len(r.Routes[0].Segments) != 1 || r.Routes[0].Segments[0].Segment != trace.SegCache {
		t.Errorf("got %+v, want the cache alone", r.Routes)
	}
}
