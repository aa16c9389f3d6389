package peers

import "testing"

func TestFlaggerTakesThreeFailedChecks(t *testing.T) {
	f := &Flagger{Usual: 100}
	for i, c := range []struct {
		p99, errors float64
		back        bool
	}{{125, .01, false}, {126, 0, false}, {90, .011, false}, {90, 0, false}, {300, 1, true}, {90, 0, true}} {
		if got := f.Minute(c.p99, c.errors); got != c.back {
			t.Errorf("minute %d: rolled back %v, want %v", i, got, c.back)
		}
	}
}

func TestKayentaSeesAShift(t *testing.T) {
	same, slower := &Kayenta{}, &Kayenta{}
	if same.High() {
		t.Error("nothing is high")
	}
	for i := range 24 {
		at := float64(i * 7 % 24)
		same.Add(Figures{20 + at}, Figures{20 + float64((i*11+5)%24)})
		slower.Add(Figures{20 + at}, Figures{40 + at})
	}
	if same.High() || !slower.High() {
		t.Errorf("equal points are high: %v; those of a slower canary: %v", same.High(), slower.High())
	}
}
