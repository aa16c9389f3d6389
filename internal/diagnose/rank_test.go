package diagnose

import (
	"slices"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

func TestCausesComeBeforeTheirConsequences(t *testing.T) {
	v := &view{seen: &scene{
		spots:    []spot{{"edge", "get"}, {"shop", "page"}},
		targets:  []place{{trace.SegDownstream, "shop", "page"}, {trace.SegDownstream, "orders", "place"}},
		families: []family{{where: 0, calls: []attempt{{to: 0}}}, {where: 1, calls: []attempt{{to: 1}}}},
	}}
	overload := Finding{Code: "LP123", Service: "orders", Verdict: Likely, harm: 0.2}
	storm := Finding{Code: "LP112", Service: "shop", Verdict: Likely, harm: 0.5, Detail: Detail{storm: true, Callees: []string{"orders"}}}
	loop := Finding{Code: "LP102", Service: "orders", ShareP99: 0.55, Verdict: Likely, Detail: Detail{Callees: []string{"people"}}}
	missed := func(variant, callee string) Finding {
		return Finding{Code: "LP115", Service: "orders", ShareP99: 0.57, Verdict: Confirmed, Detail: Detail{Variant: variant, Callees: []string{callee}}}
	}
	cases := []struct {
		name string
		list []Finding
		want []string
	}{
		{"the larger share first", []Finding{{Code: "LP101", ShareP99: 0.2}, {Code: "LP109", ShareP99: 0.7}}, []string{"LP109", "LP101"}},
		{"what is refused counts by its share of the requests", []Finding{{Code: "LP108", Service: "x", ShareP99: 0.1}, overload}, []string{"LP123", "LP108"}},
		{"overload before what it makes busy, and before the pool of who calls", []Finding{{Code: "LP106", Service: "orders", ShareP99: 0.9}, {Code: "LP111", Service: "edge", ShareP99: 0.5}, overload}, []string{"LP123", "LP106", "LP111"}},
		{"overload is no reason for others' work", []Finding{{Code: "LP106", Service: "shop", ShareP99: 0.9}, overload}, []string{"LP106", "LP123"}},
		{"a suspicion is no reason", []Finding{{Code: "LP106", Service: "orders", ShareP99: 0.9}, {Code: "LP123", Service: "orders", Verdict: Suspected, harm: 0.2}}, []string{"LP106", "LP123"}},
		{"a small refusal explains no large time", []Finding{{Code: "LP106", Service: "orders", ShareP99: 0.9}, {Code: "LP123", Service: "orders", Verdict: Likely, harm: 0.06}}, []string{"LP106", "LP123"}},
		{"a storm before who breaks in it", []Finding{{Code: "LP122", Service: "orders", Verdict: Likely, harm: 0.9}, storm}, []string{"LP112", "LP122"}},
		{"an endpoint that fails before the tries that make up for it", []Finding{{Code: "LP112", Service: "shop", Verdict: Likely, ShareP99: 0.6}, {Code: "LP122", Service: "orders", Verdict: Likely, harm: 0.2, Detail: Detail{Endpoint: "a"}}}, []string{"LP122", "LP112"}},
		{"a service that fails everywhere is no endpoint", []Finding{{Code: "LP112", Service: "shop", Verdict: Likely, ShareP99: 0.6}, {Code: "LP122", Service: "orders", Verdict: Likely, harm: 0.2}}, []string{"LP112", "LP122"}},
		{"a storm before the endpoint that it hits hardest", []Finding{storm, {Code: "LP122", Service: "orders", Verdict: Likely, harm: 0.2, Detail: Detail{Endpoint: "a"}}}, []string{"LP112", "LP122"}},
		{"a storm before the overload that it makes", []Finding{overload, storm}, []string{"LP112", "LP123"}},
		{"overload before a few tries", []Finding{{Code: "LP112", Service: "shop", Verdict: Likely, ShareP99: 0.3}, overload}, []string{"LP123", "LP112"}},
		{"a known cause before the place that takes most", []Finding{{Code: "LP105", Service: "shop", ShareP99: 0.8}, {Code: "LP107", Service: "mailer", Verdict: Confirmed, harm: 0.5}}, []string{"LP107", "LP105"}},
		{"a cause of little is not", []Finding{{Code: "LP105", Service: "shop", ShareP99: 0.8}, {Code: "LP107", Service: "mailer", Verdict: Confirmed, harm: 0.3}}, []string{"LP105", "LP107"}},
		{"one slow endpoint before what it is slow by", []Finding{{Code: "LP106", Service: "orders", ShareP99: 0.9}, {Code: "LP103", Service: "orders", Verdict: Likely, ShareP99: 0.8}}, []string{"LP103", "LP106"}},
		{"a hot key before the reads", []Finding{{Code: "LP104", Service: "edge", ShareP99: 0.9}, {Code: "LP115", Service: "shop", ShareP99: 0.8, Verdict: Likely, Detail: Detail{Variant: "hot_key"}}}, []string{"LP115", "LP104"}},
		{"misses are a reason to read, not a greater one", []Finding{{Code: "LP104", Service: "shop", ShareP99: 0.9}, {Code: "LP115", Service: "shop", ShareP99: 0.8, Verdict: Likely, Detail: Detail{Variant: "misses"}}}, []string{"LP104", "LP115"}},
		{"a cold start before its computing and its queue", []Finding{{Code: "LP106", Service: "orders", ShareP99: 0.9}, {Code: "LP107", Service: "orders", ShareP99: 0.9}, {Code: "LP116", Service: "orders", ShareP99: 0.8, Verdict: Likely}}, []string{"LP116", "LP106", "LP107"}},
		{"a loop of queries before the pool that it empties", []Finding{{Code: "LP111", Service: "orders", ShareP99: 0.7}, {Code: "LP102", Service: "orders", ShareP99: 0.2, Verdict: Likely}}, []string{"LP102", "LP111"}},
		{"a loop of calls before the misses that each of them is", []Finding{missed("misses", "people"), loop}, []string{"LP102", "LP115"}},
		{"a loop is no reason for misses of what else is read", []Finding{missed("misses", "texts"), loop}, []string{"LP115", "LP102"}},
		{"a loop is no reason for a stampede", []Finding{missed("stampede", "people"), loop}, []string{"LP115", "LP102"}},
		{"a missing index before the pool, too", []Finding{{Code: "LP111", Service: "orders", ShareP99: 0.7}, {Code: "LP109", Service: "orders", ShareP99: 0.2, Verdict: Confirmed, Detail: Detail{Variant: "missing_index"}}}, []string{"LP109", "LP111"}},
		{"a query that is just slow is no reason for a small pool", []Finding{{Code: "LP111", Service: "orders", ShareP99: 0.7}, {Code: "LP109", Service: "orders", ShareP99: 0.2, Verdict: Confirmed, Detail: Detail{Variant: slowQueryVariant}}}, []string{"LP111", "LP109"}},
		{"giving up too early before trying again", []Finding{{Code: "LP112", Service: "shop", ShareP99: 0.7}, {Code: "LP119", Service: "shop", ShareP99: 0.6, Verdict: Likely}}, []string{"LP119", "LP112"}},
		{"an endpoint that is silent before those who wait for it", []Finding{{Code: "LP118", Service: "edge", ShareP99: 0.9, Detail: Detail{Callees: []string{"shop"}}}, {Code: "LP103", Service: "shop", ShareP99: 0.8, Verdict: Likely}}, []string{"LP103", "LP118"}},
	}
	for _, c := range cases {
		for range 2 { // whatever the order they were found in
			slices.Reverse(c.list)
			var got []string
			for _, f := range v.ranked(slices.Clone(c.list)) {
				got = append(got, f.Code)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: got %v, want %v", c.name, got, c.want)
			}
		}
	}
}
