package gateway

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
)

func TestHalvesAreCountedApartAndTreatedAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		var spans collector
		g := n.start(t, with("sticky: {header: X-None}", "{}", "http://a:1")+"tracing: {traces_per_second: 10000}\n", spans.add)
		c := n.client(t)
		must(t, g.Halve("all", 0.25))
		const calls = 400
		for range calls {
			get(t, c, "http://gw:80/")
		}
		synctest.Wait()
		one, other, err := g.Halves("all")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range []uint64{one.Calls, other.Calls} {
			if h < calls/8 || h > calls/2 {
				t.Errorf("halves of %d and %d of %d calls, want about %d", one.Calls, other.Calls, calls, calls/4)
			}
		}
		if s := g.Routes()[0]; s.Arms != nil || len(s.Holdbacks) > 0 || s.Calls != calls {
			t.Errorf("a halved route shows as %+v", s)
		}
		for _, s := range spans.all() {
			if arm := s.Attr("longpole.arm"); arm != "" {
				t.Fatalf("a call of a half says that it is of the arm %q", arm)
			}
		}
	})
}

func TestACandidateEndsTheHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.serve(t, "a:1", ok("x"))
		g := n.start(t, with("sticky: {header: X-None}", "{}", "http://a:1"), nil)
		must(t, g.Halve("all", 0.05), g.Stage("all", longpole.Config{Timeout: time.Second}))
		if _, _, err := g.Halves("all"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("beside a candidate the halves say %v", err)
		}
		if err := g.Halve("all", 0.05); !errors.Is(err, ErrStaged) {
			t.Errorf("beside a candidate Halve says %v", err)
		}
		must(t, g.Discard("all"), g.Halve("all", 0.05), g.Unhalve("all"))
		if _, _, err := g.Halves("all"); !errors.Is(err, ErrNoCandidate) {
			t.Errorf("after Unhalve the halves say %v", err)
		}
		if g.Halve("all", 0.6) == nil || g.Halve("none", 0.1) == nil || g.Unhalve("none") != nil {
			t.Error("a share of 60 %, or a route that is not there, can be halved")
		}
	})
}
