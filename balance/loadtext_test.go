package balance

import (
	"testing"
	"time"
)

func TestALoadIsReadAsItWasWritten(t *testing.T) {
	want := Load{RIF: 3, Latency: 1250 * time.Microsecond}
	if got, ok := ParseLoad(want.String()); got != want || !ok {
		t.Error(got, ok)
	}
	for _, s := range []string{"", "rif", "rif=x", "latency-us=3", "rif=-1", "rif=99999999999"} {
		if _, ok := ParseLoad(s); ok {
			t.Errorf("%q says something", s)
		}
	}
}

func FuzzParseLoad(f *testing.F) {
	f.Add("rif=3, latency-us=1250")
	f.Fuzz(func(t *testing.T, s string) {
		if l, _ := ParseLoad(s); l.RIF < 0 || l.Latency < 0 {
			t.Error(l)
		}
	})
}
