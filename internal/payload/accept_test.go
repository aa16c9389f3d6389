package payload

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var all = []Coding{Zstd, Gzip, Brotli}

func TestTheCodingThatTheClientLikesBestIsChosen(t *testing.T) {
	for _, c := range []struct {
		accept string
		ours   []Coding
		want   Coding
	}{
		{"", all, Identity},
		{"gzip", all, Gzip},
		{"GZIP", all, Gzip},
		{"x-gzip", all, Gzip},
		{"gzip, deflate, br, zstd", all, Zstd},
		{"gzip, deflate, br, zstd", []Coding{Brotli, Gzip}, Brotli},
		{"gzip;q=0.5, br;q=0.8", all, Brotli},
		{"gzip;q=0.5 , br; q=0.501", all, Brotli},
		{"gzip;q=1.000, br;q=0.999", all, Gzip},
		{"br;q=0, gzip;q=0", all, Identity},
		{"*", all, Zstd},
		{"*;q=0", all, Identity},
		{"gzip, *;q=0", all, Gzip},
		{"zstd;q=0, *", all, Gzip},
		{"identity", all, Identity},
		{"identity, gzip;q=0.5", all, Identity},
		{"identity;q=0.5, gzip;q=0.5", all, Gzip},
		{"identity;q=0, gzip;q=0.001", all, Gzip},
		{"identity;q=0", all, Identity}, // nothing else is acceptable either; better this than 406
		{"deflate, compress", all, Identity},
		{"gzip;q=", all, Identity},
		{"gzip;q=1.1", all, Identity},
		{"gzip;q=0.1234", all, Identity},
		{"gzip;q=x, br", all, Brotli},
		{"gzip;level=9", all, Identity},
		{"gzip;q=0.2, gzip", []Coding{Gzip, Brotli}, Gzip},
		{",,, gzip ,", all, Gzip},
		{"gzip", nil, Identity},
		{strings.Repeat("a,", maxCodings) + "gzip", all, Identity},
	} {
		if got := ParseAccept([]string{c.accept}).Choose(c.ours); got != c.want {
			t.Errorf("%q with %v: %q; want %q", c.accept, c.ours, got, c.want)
		}
	}
	if got := ParseAccept([]string{"br;q=0.1", "gzip;q=0.2"}).Choose(all); got != Gzip {
		t.Errorf("two lines: %q; want gzip", got)
	}
}

func TestChoosingDoesNotAllocate(t *testing.T) {
	lines := []string{"gzip;q=0.9, deflate, br, zstd;q=0.8"}
	if n := testing.AllocsPerRun(100, func() { ParseAccept(lines).Choose(all) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever a client says, it never gets what it did not name, or refused.
func TestNothingThatWasNotAskedForIsChosen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"zstd", "br", "gzip", "identity", "*"}), rapid.ID[string]).Draw(t, "names")
		q := make(map[string]int)
		var parts []string
		for _, n := range names {
			q[n] = rapid.IntRange(0, 9).Draw(t, "q")
			parts = append(parts, n+";q=0."+string(rune('0'+q[n])))
		}
		got := ParseAccept([]string{strings.Join(parts, ", ")}).Choose(all)
		of := func(c string) int {
			if v, ok := q[c]; ok {
				return v
			}
			return q["*"]
		}
		if got == Identity {
			for _, c := range all {
				if of(string(c)) > 0 && of(string(c)) >= q["identity"] {
					t.Fatalf("%v: identity, though %s is liked as well", parts, c)
				}
			}
			return
		}
		if of(string(got)) == 0 || of(string(got)) < q["identity"] {
			t.Fatalf("%v: %s", parts, got)
		}
		for _, c := range all {
			if of(string(c)) > of(string(got)) {
				t.Fatalf("%v: %s, though %s is liked better", parts, got, c)
			}
		}
	})
}

func FuzzParseAccept(f *testing.F) {
	for _, s := range []string{"gzip, br;q=0.5", "*;q=0", "a;q=1;q=0,,;", "gzip;q=0.", "identity;q=0", "\x00;\xff=q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := ParseAccept([]string{s}).Choose(all)
		if got != Identity && !strings.Contains(strings.ToLower(s), string(got)) && !strings.Contains(s, "*") {
			t.Errorf("%q: %q was never named", s, got)
		}
		if !slices.Contains(append(all, Identity), got) {
			t.Errorf("%q: %q", s, got)
		}
	})
}
