package diagnose

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

func TestFindingsDoNotDependOnTheOrderOfTraces(t *testing.T) {
	at, wait := bursts(1, 40)
	var traces []trace.Trace
	for k, c := range []classCase{
		{name: "cpu", text: slowNow(300)},
		{name: "database", text: slowQuery(250)},
		{name: "queue", text: func(d dice, i int) string { return page(wait(d, i)+d.near(20), "") }, at: at},
		{name: "cache", text: func(d dice, i int) string { return aside(i%10 < 7, d.near(30), "", "") }},
		{name: "retries", text: func(d dice, i int) string { return triedAgain(2*(i%2), d.near(20), "x=%d") }},
	} {
		for _, x := range c.traces(t) {
			x.ID = c.name + x.ID
			for i := range x.Spans {
				x.Spans[i].TraceID = x.ID
				x.Spans[i].Start += int64(k) * int64(time.Hour)
				x.Spans[i].End += int64(k) * int64(time.Hour)
			}
			traces = append(traces, x)
		}
	}
	want := Run(traces, Options{}).Routes
	r := rand.New(rand.NewPCG(3, 4))
	for range 3 {
		r.Shuffle(len(traces), func(a, b int) { traces[a], traces[b] = traces[b], traces[a] })
		if got := Run(slices.Clone(traces), Options{}).Routes; !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestOfTwoFindingsTheOneThatExplainsComesFirst(t *testing.T) {
	list := []Finding{{Code: "LP102", Service: "shop", ShareP99: 0.8, Detail: Detail{Callees: []string{"db"}}}, {Code: "LP110", Service: "shop", ShareP99: 0.5}}
	for code, c := range map[string]struct {
		service string
		share   float64
		want    bool
	}{"same place": {"shop", 0.9, true}, "much more of the time": {"shop", 1.2, false}, "another service": {"cart", 0.5, false}, "what a loop calls": {"db", 0.8, false}} {
		if got := explains(list, Finding{Service: c.service, ShareP99: c.share}); got != c.want {
			t.Errorf("%s: %v", code, got)
		}
	}
}
