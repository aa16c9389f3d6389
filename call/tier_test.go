package call

import "testing"

func TestTiersAreToldFromHopToHop(t *testing.T) {
	for p := Speculative; p <= Critical; p++ {
		for _, cohort := range []uint8{0, 17, 127} {
			got, c, with, ok := ParseTier(FormatTier(p, cohort))
			if got != p || c != cohort || !with || !ok {
				t.Errorf("%v and %d became %v %d %v %v", p, cohort, got, c, with, ok)
			}
		}
	}
	if got := FormatTier(Critical+1, 200); got != "critical;cohort=127" {
		t.Errorf("got %q", got)
	}
	for text, want := range map[string]bool{
		"critical": true, " normal ; cohort=3": false, "critical; cohort=3": true, "": false, "exempt": false, "critical;cohort=128": false, "critical;c=1": false, "critical;": false,
		"critical;cohort=-1": false,
	} {
		if _, _, _, ok := ParseTier(text); ok != want {
			t.Errorf("%q is read: %v", text, ok)
		}
	}
}

func FuzzParseTier(f *testing.F) {
	f.Add("critical;cohort=17")
	f.Fuzz(func(t *testing.T, s string) {
		if p, cohort, _, ok := ParseTier(s); ok && (p < Speculative || p > Critical || cohort > 127) {
			t.Errorf("%q is %v %d", s, p, cohort)
		}
	})
}
