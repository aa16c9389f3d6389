package call

import "testing"

func TestPrioritiesHaveNames(t *testing.T) {
	for p := Speculative; p <= Critical; p++ {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Priority
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%v came back as %v, %v", p, back, err)
		}
	}
	var p Priority
	if err := p.UnmarshalText([]byte("urgent")); err == nil || p != Normal {
		t.Errorf("an unknown name gave %v, %v", p, err)
	}
	if got := Priority(7).String(); got != "unknown" {
		t.Errorf("a priority that there is none of is called %q", got)
	}
}
