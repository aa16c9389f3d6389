package diagnose

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestCompareNamesWhatBreaks(t *testing.T) {
	// shop calls cart and then pay; cart asks its database. Each line says whether it fails in trace i.
	shop := func(cart, pay, statement func(i int) bool) func(int) string {
		return func(i int) string {
			failed := func(is func(int) bool) string {
				if is != nil && is(i) {
					return " failed"
				}
				return ""
			}
			either := func(j int) bool { return cart != nil && cart(j) || pay != nil && pay(j) }
			text := fmt.Sprintf("buy 0ms 100ms service=shop kind=server%s\n  call 5ms 45ms kind=client%s\n    cart 10ms 40ms service=cart kind=server%s\n", failed(either), failed(cart), failed(cart))
			if statement == nil || !statement(i) {
				text += "      \"SELECT x\" 15ms 30ms kind=client db.system=mysql\n"
			}
			return text + fmt.Sprintf("  call 50ms 90ms kind=client%s\n    pay 55ms 85ms service=pay kind=server%s", failed(pay), failed(pay))
		}
	}
	third := func(i int) bool { return i%3 == 0 }
	seldom := func(i int) bool { return i%40 == 0 }
	for _, c := range []struct {
		name              string
		suspect, baseline func(int) string
		want              string
	}{
		{"a service that fails, and not its caller", shop(third, nil, nil), shop(nil, nil, nil), "cart errors"},
		{"the other one", shop(nil, third, nil), shop(nil, nil, nil), "pay errors"},
		{"one that failed before as well", shop(third, nil, nil), shop(third, nil, nil), ""},
		{"one that fails less", shop(nil, nil, nil), shop(third, nil, nil), ""},
		{"one failure in forty is chance", shop(seldom, nil, nil), shop(nil, nil, nil), ""},
		{"one that leaves out its statement", shop(nil, nil, third), shop(nil, nil, nil), "cart missing_calls"},
		{"one that left it out before as well", shop(nil, nil, third), shop(nil, nil, third), ""},
		{"one that makes it again", shop(nil, nil, nil), shop(nil, nil, third), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Compare(many(t, 60, c.suspect), many(t, 60, c.baseline))
			var names []string
			for _, x := range got.Culprits {
				names = append(names, x.Service+" "+x.Class)
			}
			if strings.Join(names, ", ") != c.want {
				t.Errorf("got %v %v, want %s", names, got.Notes, c.want)
			}
			if c.want != "" && !strings.Contains(strings.Join(got.Notes, "\n"), "of its visits; in the baseline in 0.0 %") {
				t.Errorf("notes: %q", got.Notes)
			}
		})
	}
}

func TestCallsThatOnlyTheCallerRecordedSayWhoIsSlow(t *testing.T) {
	// shop calls a, which calls b and c; nobody records server spans below shop.
	system := func(a, b, c int) func(int) string {
		return func(i int) string {
			at := 10 + a + i%4
			text := fmt.Sprintf("    call-b %dms %dms service=a kind=client server.address=b\n    call-c %dms %dms service=a kind=client server.address=c\n", at, at+b, at+b+1, at+b+1+c)
			end := at + b + 1 + c + a
			return fmt.Sprintf("buy 0ms %dms service=shop kind=server\n  call-a 5ms %dms kind=client server.address=a\n%s", end+5+i%3, end, text)
		}
	}
	for _, c := range []struct {
		name    string
		suspect func(int) string
		want    string
	}{
		{"the middle", system(60, 10, 10), "a"},
		{"a leaf", system(10, 60, 10), "b"},
		{"the other leaf", system(10, 10, 60), "c"},
	} {
		got := Compare(many(t, 40, c.suspect), many(t, 40, system(10, 10, 10)))
		if len(got.Culprits) != 1 || got.Culprits[0].Service != c.want {
			t.Errorf("%s: got %+v, want %s", c.name, got.Culprits, c.want)
		}
	}
}

func TestEvenDelaysAreTheNetworksAndUnevenOnesTheProcessors(t *testing.T) {
	edge := func(added func(i int) int) func(int) string {
		return func(i int) string {
			d := 2 + i%2 + added(i)
			return fmt.Sprintf("buy 0ms %dms service=shop kind=server\n  call 5ms %dms kind=client\n    get %dms %dms service=a kind=server", d+40, d+25, d+4, d+24)
		}
	}
	none := func(int) int { return 0 }
	for _, c := range []struct {
		name  string
		added func(i int) int
		want  string
	}{
		{"the same for all", func(int) int { return 80 }, "network"},
		{"the same for some", func(i int) int { return 80 * (i % 2) }, "network"},
		{"the same for all, and some jitter", func(i int) int { return 60 + i*7%40 }, "network"},
		{"a multiple for each message", func(i int) int { return 200 * (i % 4) }, "network"},
		{"anything up to a scheduling period", func(i int) int { return i * 37 % 97 }, "cpu"},
	} {
		got := Compare(many(t, 80, edge(c.added)), many(t, 80, edge(none)))
		if len(got.Culprits) != 1 || got.Culprits[0].Service != "a" || got.Culprits[0].Class != c.want {
			t.Errorf("%s: got %+v, want a by %s", c.name, got.Culprits, c.want)
		}
	}
}

func TestWhatAllServicesShareIsNobodysFault(t *testing.T) {
	// shop calls six services, one after the other; load stretches all work, and slow the work of the first alone.
	system := func(load, slow float64) func(int) string {
		return func(i int) string {
			var b strings.Builder
			at := 5.0
			for k := range 6 {
				own := (8 + float64((i+k)%5)) * load
				if k == 0 {
					own *= slow
				}
				fmt.Fprintf(&b, "  call %.2fms %.2fms kind=client\n    get %.2fms %.2fms service=s%d kind=server\n", at, at+own+2, at+1, at+own+1, k)
				at += own + 3
			}
			return fmt.Sprintf("buy 0ms %.2fms service=shop kind=server\n%s", at+5*load, b.String())
		}
	}
	for _, c := range []struct {
		load, slow float64
		want       string
	}{{1.3, 1, ""}, {1, 1, ""}, {1.3, 3, "s0"}, {0.8, 3, "s0"}} {
		got := Compare(many(t, 100, system(c.load, c.slow)), many(t, 100, system(1, 1)))
		name := ""
		if len(got.Culprits) == 1 {
			name = got.Culprits[0].Service
		}
		if len(got.Culprits) > 1 || name != c.want {
			t.Errorf("load %v, slow %v: got %+v %v, want %q", c.load, c.slow, got.Culprits, got.Notes, c.want)
		}
	}
}

func TestExactTestOfCounts(t *testing.T) {
	// One-sided p values by R's fisher.test, as standard deviations.
	for _, c := range []struct {
		a, n, b, m int
		p          float64
	}{
		{3, 4, 1, 4, 0.242857142857}, {5, 100, 0, 200, 0.00384506}, {10, 10, 0, 10, 5.41254e-06},
	} {
		want := math.Sqrt2 * math.Erfcinv(2*c.p)
		if got := unlikely(c.a, c.n, c.b, c.m); math.Abs(got-want) > 1e-3 {
			t.Errorf("%+v: got %.5f, want %.5f", c, got, want)
		}
	}
	for _, c := range [][4]int{{0, 10, 0, 10}, {1, 10, 5, 10}, {5, 10, 5, 10}} {
		if got := unlikely(c[0], c[1], c[2], c[3]); got != 0 {
			t.Errorf("%v: got %v, want 0", c, got)
		}
	}
	if got := unlikely(1_000_000, 1_000_000, 0, 1_000_000); math.IsInf(got, 0) || math.IsNaN(got) || got < 30 {
		t.Errorf("far out: %v", got)
	}
}

func TestTooManyShapesAreBoundedWhateverTheirOrder(t *testing.T) {
	one, other := &conduct{shapes: map[uint64]*habit{}}, &conduct{shapes: map[uint64]*habit{}}
	const n = 3 * maxShapes
	for i := range uint64(2 * n) {
		one.did(i%n*7919, nil)
		other.did((2*n-1-i)%n*7919, nil)
	}
	if len(one.shapes) != maxShapes || len(other.shapes) != maxShapes {
		t.Fatalf("%d and %d shapes, want %d", len(one.shapes), len(other.shapes), maxShapes)
	}
	for shape, h := range one.shapes {
		if o := other.shapes[shape]; o == nil || o.visits != h.visits || h.visits != 2 {
			t.Fatalf("shape %d: %+v and %+v", shape, h, o)
		}
	}
}
