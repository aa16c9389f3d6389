package trace

import (
	"fmt"
	"testing"
)

func TestAttrPrefersTheFirstKeyThenTheFirstAttribute(t *testing.T) {
	s := Span{Attributes: []Attribute{{"old", "1"}, {"new", "2"}, {"new", "3"}, {"empty", ""}, {"ne2", "4"}}}
	for _, c := range []struct {
		keys []string
		want string
	}{
		{[]string{"new", "old"}, "2"},
		{[]string{"old", "new"}, "1"},
		{[]string{"none", "new"}, "2"},
		{[]string{"empty", "new"}, ""},
		{[]string{"none"}, ""},
		{nil, ""},
	} {
		if got := s.Attr(c.keys...); got != c.want {
			t.Errorf("%q is %q, want %q", c.keys, got, c.want)
		}
	}
}

func BenchmarkAttr(b *testing.B) {
	var s Span
	for i := range 18 {
		s.Attributes = append(s.Attributes, Attribute{Key: fmt.Sprintf("%0*d.key", 6+i%9, i), Value: "v"})
	}
	for b.Loop() {
		if s.Attr("db.system.name", "db.system", "db.type") != "" {
			b.Fatal("found")
		}
	}
}
