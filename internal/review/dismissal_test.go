package review_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/staging"
)

// slowTimeout is an input in which LP301 is found about the route orders.
func slowTimeout(timeout time.Duration) review.Input {
	return busy(func(r *review.Route) { r.Policy.Timeout = timeout })
}

func order(edit func(*review.Order)) review.Order {
	o := review.Order{Code: "LP301", Subject: "orders", Reason: "exports take as long", By: "ann", Until: "2026-03-31"}
	if edit != nil {
		edit(&o)
	}
	return o
}

// dismiss is the dismissals that an order about in makes.
func dismiss(t *testing.T, o review.Order, in review.Input) []review.Dismissal {
	t.Helper()
	list, err := review.Dismiss(o, noon, review.Run(in).Findings, in.Advice)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestADismissedFindingIsShownWithItsReasonAndCountsNoMore(t *testing.T) {
	in := slowTimeout(30 * time.Second)
	in.Dismissals = dismiss(t, order(nil), in)
	r := review.Run(in)
	if len(r.Findings) != 0 || len(r.Dismissed) != 1 || r.Dismissed[0].Subject != "orders" || r.Dismissed[0].Dismissal.By != "ann" || len(r.Lapsed) != 0 {
		t.Fatalf("%+v %+v", r.Findings, r.Dismissed)
	}
	if want := "no change is held back; 0 findings; 1 dismissed"; r.Headline() != want {
		t.Errorf("%q", r.Headline())
	}
	var text strings.Builder
	if err := r.Text(&text); err != nil || !strings.Contains(text.String(), "LP301 dismissed  timeout too long: orders\n  by ann on 2026-03-01 until 2026-04-01 00:00: exports take as long\n") {
		t.Errorf("%v %s", err, text.String())
	}
}

func TestADismissalHoldsUntilSomethingIsOther(t *testing.T) {
	before := slowTimeout(30 * time.Second)
	d := dismiss(t, order(nil), before)
	for name, c := range map[string]struct {
		in   review.Input
		why  string // "" = it holds
		gone bool
	}{
		"nothing is other":        {in: slowTimeout(30 * time.Second)},
		"a little larger":         {in: of(5000, 17*time.Millisecond, func(r *review.Route) { r.Policy.Timeout = 30 * time.Second })},
		"larger by a fifth":       {in: of(5000, 16*time.Millisecond, func(r *review.Route) { r.Policy.Timeout = 30 * time.Second }), why: "it grew by 2"},
		"another setting":         {in: slowTimeout(20 * time.Second), why: "its evidence changed"},
		"another route":           {in: edit(slowTimeout(30*time.Second), func(in *review.Input) { in.Routes[0].Name = "carts" }), why: "-"},
		"its time is over":        {in: edit(slowTimeout(30*time.Second), func(in *review.Input) { in.Now = noon.Add(40 * day) }), why: "the dismissal expired"},
		"over, and cured besides": {in: review.Input{Now: noon.Add(40 * day)}, why: "the dismissal expired", gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Dismissals = d
			r := review.Run(c.in)
			switch {
			case c.why == "" && (len(r.Dismissed) != 1 || len(r.Findings) != 0):
				t.Errorf("%+v", r.Findings)
			case c.why == "-" && (len(r.Findings) != 1 || len(r.Lapsed) != 0 || len(r.Dismissed) != 0):
				t.Errorf("%+v %+v", r.Findings, r.Lapsed)
			case len(c.why) > 1 && (len(r.Lapsed) != 1 || !strings.HasPrefix(r.Lapsed[0].Why, c.why)):
				t.Errorf("%+v", r.Lapsed)
			case len(c.why) > 1 && !c.gone && (len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Detail, "; back, since "+c.why) || !strings.Contains(r.Findings[0].Detail, "(dismissed by ann on 2026-03-01 until")):
				t.Errorf("%+v", r.Findings)
			}
		})
	}
}

func TestWhatIsDismissedIsNotGone(t *testing.T) {
	in := slowTimeout(30 * time.Second)
	first := review.Run(in)
	in.Last, in.Dismissals, in.Now = &first, dismiss(t, order(nil), in), noon.Add(7*day)
	if d := review.Run(in).Diff; len(d.Gone) != 0 || len(d.New) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestOrdersThatCannotBe(t *testing.T) {
	in := slowTimeout(30 * time.Second)
	harmful := input()
	for name, c := range map[string]struct {
		order review.Order
		in    review.Input
		want  error
	}{
		"no reason":        {order(func(o *review.Order) { o.Reason = " " }), in, review.ErrDismissal},
		"a long reason":    {order(func(o *review.Order) { o.Reason = strings.Repeat("x", 1001) }), in, review.ErrDismissal},
		"by nobody":        {order(func(o *review.Order) { o.By = "" }), in, review.ErrDismissal},
		"for ever":         {order(func(o *review.Order) { o.Until = "" }), in, review.ErrDismissal},
		"no date":          {order(func(o *review.Order) { o.Until = "soon" }), in, review.ErrDismissal},
		"the past":         {order(func(o *review.Order) { o.Until = "2026-02-27" }), in, review.ErrDismissal},
		"years":            {order(func(o *review.Order) { o.Until = "2028-01-01" }), in, review.ErrDismissal},
		"no code":          {order(func(o *review.Order) { o.Code = "timeout" }), in, review.ErrDismissal},
		"another code":     {order(func(o *review.Order) { o.Code = "LP302" }), in, review.ErrNothing},
		"another route":    {order(func(o *review.Order) { o.Subject = "carts" }), in, review.ErrNothing},
		"what is harmful":  {order(func(o *review.Order) { o.Code, o.Subject = "LP320", "r1 on route orders" }), harmful, review.ErrHarmful},
		"harmful by route": {order(func(o *review.Order) { o.Code, o.Subject = "LP320", "orders" }), harmful, review.ErrHarmful},
	} {
		if list, err := review.Dismiss(c.order, noon, review.Run(c.in).Findings, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v", name, list, err)
		}
	}
	harmful.Dismissals = []review.Dismissal{{Code: "LP320", Subject: "r1 on route orders", Until: noon.Add(day)}}
	if r := review.Run(harmful); len(r.Findings) != 1 || len(r.Dismissed) != 0 {
		t.Error("what became harmful after it was dismissed is hidden")
	}
}

func TestACodeAloneMeansAllThatHaveIt(t *testing.T) {
	in := slowTimeout(30 * time.Second)
	other := in.Routes[0]
	other.Name = "carts"
	in.Routes = append(in.Routes, other)
	list := dismiss(t, order(func(o *review.Order) { o.Subject, o.Until = "", "2026-03-05T06:00:00Z" }), in)
	if len(list) != 2 || list[1].Subject != "carts" || !list[1].Until.Equal(time.Date(2026, 3, 5, 6, 0, 0, 0, time.UTC)) || list[0].Size == 0 || list[0].Basis != "30s" {
		t.Fatalf("%+v", list)
	}
	back, err := review.Reopen(order(nil), list)
	if err != nil || len(back) != 1 || back[0].Subject != "orders" {
		t.Errorf("%+v %v", back, err)
	}
	if _, err := review.Reopen(order(func(o *review.Order) { o.Subject = "x" }), list); !errors.Is(err, review.ErrNothing) {
		t.Error(err)
	}
}

// advice is an input with one hedge to advise.
func advice(share float64, verdict string) review.Input {
	return review.Input{Now: noon, Advice: []review.Advice{
		{Code: "LP103", Subject: "orders", Route: "orders", Kind: "hedge", Summary: "one endpoint is slow", ShareP99: share, Basis: verdict},
		{Code: "LP109", Subject: "shop SELECT orders", Kind: "index", ShareP99: 0.1, Basis: "likely"},
	}}
}

func TestAdviceGoesThroughItsStages(t *testing.T) {
	with := func(edit func(*staging.Record)) review.Input {
		in := advice(0.3, "likely")
		in.Records = []staging.Record{promoted("r7", func(r *staging.Record) { r.ShareP99 = 0.3; edit(r) })}
		return in
	}
	claimed := with(func(r *staging.Record) { r.Phase = "rolled_back" })
	claimed.Running = []review.Running{{ID: "r8", Route: "orders", Code: "LP103"}}
	for want, in := range map[string]review.Input{
		"ACTIVE ":      advice(0.3, "likely"),
		"CLAIMED r8":   claimed,
		"SUCCEEDED r7": with(func(*staging.Record) {}),
		"FAILED r7":    with(func(r *staging.Record) { r.Phase = "rolled_back" }),
	} {
		r := review.Run(in)
		if a := r.Advice[0]; len(r.Advice) != 2 || string(a.Stage)+" "+a.Rollout != want || r.Advice[1].Stage != review.Active {
			t.Errorf("%+v, want %s", r.Advice, want)
		}
	}
	undone := with(func(r *staging.Record) { r.Undone = noon })
	if r := review.Run(undone); r.Advice[0].Stage != review.Failed {
		t.Errorf("%+v", r.Advice[0])
	}
}

func TestDismissedAdviceComesBackWhenItIsAnotherMatter(t *testing.T) {
	o := order(func(o *review.Order) { o.Code = "LP103" })
	d := dismiss(t, o, advice(0.3, "likely"))
	for name, c := range map[string]struct {
		in  review.Input
		why string
	}{
		"the same":         {advice(0.35, "likely"), ""},
		"grown":            {advice(0.36, "likely"), "it grew by 20 %"},
		"other evidence":   {advice(0.3, "confirmed"), "its evidence changed"},
		"its time is over": {edit(advice(0.3, "likely"), func(in *review.Input) { in.Now = noon.Add(60 * day) }), "the dismissal expired"},
	} {
		c.in.Dismissals = d
		r := review.Run(c.in)
		if c.why == "" {
			if r.Advice[0].Stage != review.SetAside || r.Advice[0].Dismissal.Reason != "exports take as long" || len(r.Findings) != 0 {
				t.Errorf("%s: %+v", name, r.Advice[0])
			}
			continue
		}
		if r.Advice[0].Stage != review.Active || len(r.Findings) != 1 || r.Findings[0].Code != "LP328" || !strings.HasPrefix(r.Findings[0].Detail, c.why) || len(r.Lapsed) == 0 {
			t.Errorf("%s: %+v %+v %+v", name, r.Advice[0], r.Findings, r.Lapsed)
		}
	}
	if list := dismiss(t, order(func(o *review.Order) { o.Code, o.Subject = "LP109", "shop SELECT orders" }), advice(0.3, "likely")); len(list) != 1 {
		t.Errorf("advice that is not ours to carry out cannot be dismissed: %+v", list)
	}
}
