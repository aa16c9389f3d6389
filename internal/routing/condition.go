package routing

import (
	"regexp"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// The bounds on a Match.
const (
	maxRegexp     = 256 // characters
	maxConditions = 16  // of a Match, of each kind
	maxCaptures   = 16  // of a pattern
	maxText       = 4096
)

// Condition is what a header field or a query parameter must be. Of a name that stands there several times one value must
// fit. Without Exact, Prefix, Regexp and Absent any value will do.
type Condition struct {
	Name   string `yaml:"name" json:"name"`               // a header field's in any case; a parameter's as it is once decoded
	Exact  string `yaml:"exact" json:"exact,omitempty"`   // the whole value
	Prefix string `yaml:"prefix" json:"prefix,omitempty"` // how it begins
	Regexp string `yaml:"regexp" json:"regexp,omitempty"` // RE2, of the whole value; up to 256 characters
	Absent bool   `yaml:"absent" json:"absent,omitempty"` // the name must not be there at all
}

func (c Condition) validate(header bool) error {
	var f setting.Faults
	if header {
		f.Check(token(c.Name), "name", c.Name, "the name of a header field")
	} else {
		f.Check(c.Name != "" && len(c.Name) <= maxText, "name", c.Name, "the name of a parameter")
	}
	set := 0
	for _, one := range []bool{c.Exact != "", c.Prefix != "", c.Regexp != "", c.Absent} {
		if one {
			set++
		}
	}
	f.Check(set <= 1, "name", c.Name, "one of exact, prefix, regexp and absent at most")
	f.Check(len(c.Exact) <= maxText, "exact", len(c.Exact), "at most 4096 bytes")
	f.Check(len(c.Prefix) <= maxText, "prefix", len(c.Prefix), "at most 4096 bytes")
	if c.Regexp != "" {
		_, err := whole(c.Regexp)
		f.Check(len(c.Regexp) <= maxRegexp, "regexp", len(c.Regexp), "at most 256 characters")
		f.Check(err == nil, "regexp", c.Regexp, "an expression in the syntax of RE2")
	}
	return f.Err()
}

// whole compiles an expression that must take a value from its first byte to its last. Parsing the text alone first
// keeps one that closes a bracket it did not open from escaping the frame.
func whole(text string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(text); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + text + `)\z`)
}

// String is c in the notation of messages.
func (c Condition) String() string {
	switch {
	case c.Exact != "":
		return c.Name + "=" + c.Exact
	case c.Prefix != "":
		return c.Name + "=" + c.Prefix + "*"
	case c.Regexp != "":
		return c.Name + "~" + c.Regexp
	case c.Absent:
		return "!" + c.Name
	}
	return c.Name
}

// test is a compiled Condition. It is immutable.
type test struct {
	Condition
	re *regexp.Regexp
}

func newTest(c Condition) (test, error) {
	t := test{Condition: c}
	var err error
	if c.Regexp != "" {
		t.re, err = whole(c.Regexp)
	}
	return t, err
}

// fits judges one value of a name that is there.
func (t *test) fits(value string) bool {
	switch {
	case t.Exact != "":
		return value == t.Exact
	case t.Prefix != "":
		return strings.HasPrefix(value, t.Prefix)
	case t.re != nil:
		return t.re.MatchString(value)
	}
	return !t.Absent
}

// header judges the values of the field.
func (t *test) header(values []string) bool {
	if t.Absent {
		return len(values) == 0
	}
	return slices.ContainsFunc(values, t.fits)
}

// query judges a query as it stands in a URL.
func (t *test) query(raw string) bool {
	for pair := range pairs(raw) {
		name, value, _ := strings.Cut(pair, "=")
		if unquote(name) != t.Name {
			continue
		}
		if t.Absent {
			return false
		}
		if t.fits(unquote(value)) {
			return true
		}
	}
	return t.Absent
}

// implied reports whether every call that passes o passes t.
func (t *test) implied(o *test) bool {
	switch {
	case t.Name != o.Name || t.Absent != o.Absent:
		return false
	case t.Absent:
		return true
	case t.Condition == o.Condition:
		return true
	case t.Exact == "" && t.Prefix == "" && t.re == nil:
		return true
	case o.Exact != "":
		return t.fits(o.Exact)
	}
	return t.Prefix != "" && o.Prefix != "" && strings.HasPrefix(o.Prefix, t.Prefix)
}

// allImplied reports whether every call that passes all of o passes all of t.
func allImplied(t, o []test) bool {
	for i := range t {
		found := false
		for j := range o {
			found = found || t[i].implied(&o[j])
		}
		if !found {
			return false
		}
	}
	return true
}

// token reports whether a text may be the name of a header field (RFC 9110 section 5.6.2).
func token(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != "" && len(name) <= 256
}
