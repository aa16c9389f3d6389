package diagnose

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// step is a call of the synthetic system: to is asked by its caller after `before` ms, the request is on its way for
// `edge` ms in all, and to needs own ms for itself.
type step struct {
	to         string
	edge, own  int
	statements int // ms in its database
	calls      []step
}

// write lays s out in the trace notation, without kinds, and returns its end in ms.
func (s step) write(b *strings.Builder, indent, from int, r *rand.Rand) int {
	pad := strings.Repeat(" ", indent)
	var inner strings.Builder
	at := from + s.edge/2 + s.own + r.IntN(3)
	if s.statements > 0 {
		fmt.Fprintf(&inner, "%s  \"SELECT x\" %dms %dms\n", pad+" ", at, at+s.statements)
		at += s.statements
	}
	for _, c := range s.calls {
		at = c.write(&inner, indent+2, at+1, r)
	}
	end := at + 1 + s.edge - s.edge/2 + r.IntN(3)
	fmt.Fprintf(b, "%scall %dms %dms\n%s serve-%s %dms %dms service=%s\n%s", pad, from, end, pad, s.to, from+s.edge/2, at+1, s.to, inner.String())
	return end
}

// system is traces of a root that makes the calls, one after the other.
func system(t *testing.T, seed uint64, n int, calls ...step) []trace.Trace {
	r := rand.New(rand.NewPCG(seed, 1))
	return many(t, n, func(int) string {
		var b strings.Builder
		at := 2
		for _, c := range calls {
			at = c.write(&b, 1, at, r) + 1
		}
		return fmt.Sprintf("home 0ms %dms service=front\n%s", at+2+r.IntN(3), b.String())
	})
}

func TestCompareBlamesWhoGrew(t *testing.T) {
	// front calls a and b; a calls c and d; b calls c.
	shop := func(change func(a, b, c, d, viaB *step)) []step {
		c, d := step{to: "c", edge: 2, own: 5, statements: 5}, step{to: "d", edge: 2, own: 5}
		a, b, viaB := step{to: "a", edge: 2, own: 5}, step{to: "b", edge: 2, own: 5}, c
		if change != nil {
			change(&a, &b, &c, &d, &viaB)
		}
		a.calls, b.calls = []step{c, d}, []step{viaB}
		return []step{a, b}
	}
	for _, x := range []struct {
		name           string
		change         func(a, b, c, d, viaB *step)
		culprit, class string
	}{
		{"its own code", func(_, b, _, _, _ *step) { b.own = 40 }, "b", "cpu"},
		{"its database", func(_, _, c, _, viaB *step) { c.statements, viaB.statements = 60, 60 }, "c", "database"},
		{"the edge to it, from its only caller", func(_, _, _, d, _ *step) { d.edge = 60 }, "d", "network"},
		{"the edges to it, from both its callers", func(_, _, c, _, viaB *step) { c.edge, viaB.edge = 60, 60 }, "c", "network"},
		{"all edges out of one service", func(_, _, c, d, _ *step) { c.edge, d.edge = 60, 50 }, "a", "network"},
		{"all edges in and out of one service", func(a, _, c, d, _ *step) { a.edge, c.edge, d.edge = 60, 60, 50 }, "a", "network"},
		{"its code and all its edges", func(a, _, c, d, _ *step) { a.edge, a.own, c.edge, d.edge = 60, 50, 60, 50 }, "a", "cpu"},
		{"an edge whose callee is well for its other caller", func(_, _, _, _, viaB *step) { viaB.edge = 60 }, "b", "network"},
		{"everything below a slow callee is innocent", func(_, _, _, d, _ *step) { d.own = 90 }, "d", "cpu"},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := Compare(system(t, 1, 60, shop(x.change)...), system(t, 2, 60, shop(nil)...))
			if len(got.Culprits) != 1 || got.Culprits[0].Service != x.culprit || got.Culprits[0].Class != x.class {
				t.Fatalf("got %+v %v, want %s by %s", got.Culprits, got.Notes, x.culprit, x.class)
			}
			if c := got.Culprits[0]; c.ExcessMS < 20 || c.Share < 0.98 || c.Operation == "" || c.Segment == "" {
				t.Errorf("%+v", c)
			}
		})
	}
	t.Run("two faults", func(t *testing.T) {
		got := Compare(system(t, 1, 60, shop(func(_, b, _, d, _ *step) { b.own, d.own = 40, 90 })...), system(t, 2, 60, shop(nil)...))
		if len(got.Culprits) != 2 || got.Culprits[0].Service != "d" || got.Culprits[1].Service != "b" {
			t.Errorf("%+v", got.Culprits)
		}
	})
	t.Run("the healthy side of a fault", func(t *testing.T) {
		got := Compare(system(t, 1, 60, shop(nil)...), system(t, 2, 60, shop(func(_, b, _, _, _ *step) { b.own = 40 })...))
		if len(got.Culprits) != 0 || len(got.Notes) == 0 {
			t.Errorf("%+v %v", got.Culprits, got.Notes)
		}
	})
}

func TestCompareNamesNobodyWhenNothingDiffers(t *testing.T) {
	a, b := step{to: "a", edge: 2, own: 5}, step{to: "b", edge: 2, own: 200}
	plain := system(t, 1, 80, a)
	heavy := system(t, 2, 80, a, b)
	for _, c := range []struct {
		name              string
		suspect, baseline []trace.Trace
		says              string
	}{
		{"two halves of the same traffic", plain[:40], plain[40:], "do not differ"},
		{"the same traffic again", system(t, 3, 80, a, b), heavy, "do not differ"},
		{"more of the slow kind of request", append(heavy[:70:70], plain[:10]...), append(heavy[70:80:80], plain[10:]...), "do not differ"},
		{"no operation in common", plain, system(t, 4, 80), "nothing to compare"},
		{"no baseline", plain, nil, "nothing to compare"},
		{"nothing at all", nil, nil, "nothing to compare"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "no operation in common" {
				c.baseline = many(t, 40, same("other 0ms 5ms service=other"))
			}
			got := Compare(c.suspect, c.baseline)
			if len(got.Culprits) > 0 || got.Culprits == nil || !strings.Contains(strings.Join(got.Notes, "\n"), c.says) {
				t.Errorf("got %+v %q, want %q", got.Culprits, got.Notes, c.says)
			}
		})
	}
}

func TestChanceSeldomNamesAnybody(t *testing.T) {
	named := 0
	for seed := range uint64(50) {
		a, b := step{to: "a", edge: 2, own: 5, calls: []step{{to: "c", edge: 3, own: 9, statements: 4}}}, step{to: "b", edge: 2, own: 20}
		if len(Compare(system(t, 2*seed, 20, a, b), system(t, 2*seed+1, 20, a, b)).Culprits) > 0 {
			named++
		}
	}
	if named > 2 {
		t.Errorf("%d of 50 equal pairs are said to differ", named)
	}
}

func TestSpanBesideACallTakesNoBlame(t *testing.T) {
	// The handler of an event loop is recorded beside the call it makes, and ends last.
	gateway := func(took int) func(int) string {
		return func(i int) string {
			took := took + i%5
			return fmt.Sprintf("all 0ms %dms service=gateway\n  handle 1ms %dms\n  call 2ms %dms\n    get 3ms %dms service=a", took+9, took+8, took+7, took)
		}
	}
	got := Compare(many(t, 40, gateway(200)), many(t, 40, gateway(20)))
	if len(got.Culprits) != 1 || got.Culprits[0].Service != "a" {
		t.Errorf("%+v", got)
	}
}

func TestUnrecordedCalleeIsBlamedByItsName(t *testing.T) {
	for peer, want := range map[string]string{
		"peer.service=bank":                      "bank downstream",
		"server.address=10.1.2.3":                "shop downstream",
		"server.address=\"a.shop.svc\"":          "a downstream",
		"db.system=mysql server.address=mysql-0": "shop database",
	} {
		text := func(took int) func(int) string {
			return func(i int) string {
				return fmt.Sprintf("buy 0ms %dms service=shop\n  pay 1ms %dms kind=client %s\n  call %dms %dms kind=client\n    get %dms %dms service=a kind=server",
					took+i%5+20, took+i%5, peer, took+5, took+15, took+7, took+13)
			}
		}
		got := Compare(many(t, 40, text(200)), many(t, 40, text(20)))
		if len(got.Culprits) != 1 || got.Culprits[0].Service+" "+string(got.Culprits[0].Segment) != want {
			t.Errorf("%s: got %+v, want %s", peer, got, want)
		}
	}
}
