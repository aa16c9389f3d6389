package httpcache

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxNames bounds on how many request fields the answers for one key may depend.
const maxNames = 12

// Variance says on which request fields the answers for a key depend (RFC 9111 section 4.1). It lies in the store under
// the key itself, where it leads to the answers: each lies under its own key. It is immutable.
type Variance struct {
	names []string // canonical, sorted
	nonce uint64   // changes when the key is invalidated, so that what it led to before is not found again
}

// Vary are the request fields on which an answer depends: those that it says, and Accept-Encoding or Origin when it shows
// that it does. ok is false for *, or for more than 12.
func Vary(answer http.Header) (names []string, ok bool) {
	for _, line := range answer["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" {
				return nil, false
			} else if name != "" {
				names = add(names, http.CanonicalHeaderKey(name))
			}
			if len(names) > maxNames {
				return nil, false
			}
		}
	}
	if len(answer["Content-Encoding"]) > 0 {
		names = add(names, "Accept-Encoding")
	}
	if allow := answer["Access-Control-Allow-Origin"]; len(allow) > 0 && allow[0] != "*" {
		names = add(names, "Origin")
	}
	return names, len(names) <= maxNames
}

func add(names []string, name string) []string {
	if slices.Contains(names, name) {
		return names
	}
	return append(names, name)
}

// Extend returns a Variance that leads to answers that depend on names too; nil when that would be too many. v may be
// nil, and is returned when it has all of them already. nonce must not have been used for the key before.
func (v *Variance) Extend(names []string, nonce uint64) *Variance {
	if v == nil && len(names) == 0 {
		return nil
	}
	var all []string
	if v != nil {
		all = slices.Clone(v.names)
	}
	for _, name := range names {
		all = add(all, name)
	}
	switch {
	case v != nil && len(all) == len(v.names):
		return v
	case len(all) > maxNames:
		return nil
	}
	slices.Sort(all)
	return &Variance{names: all, nonce: nonce}
}

// Key is where the answer for a request lies whose header, as the origin gets it, is h. base is the key under which v
// itself lies.
func (v *Variance) Key(base string, h http.Header) string {
	sum := sha256.New()
	var b [8]byte
	for _, name := range v.names {
		lines, there := h[name]
		value := normal(name, lines)
		n := uint64(len(value)) + 1
		if !there {
			n = 0 // a field that is empty is not one that is missing
		}
		binary.BigEndian.PutUint64(b[:], n)
		sum.Write(b[:])
		sum.Write([]byte(value))
	}
	binary.BigEndian.PutUint64(b[:], v.nonce)
	sum.Write(b[:])
	return base + "\n" + base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

// normal brings field values of the same meaning into one form (RFC 9111 section 4.1): several lines are one list, white
// space around its commas says nothing, and neither does case in Accept-Encoding, Accept-Language and Accept-Charset.
// The order stays, because many servers take it for a preference.
func normal(name string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	var members []string
	for _, line := range lines {
		for line != "" {
			var member string
			if member, line = cutMember(line); member != "" {
				members = append(members, member)
			}
		}
	}
	s := strings.Join(members, ",")
	if name == "Accept-Encoding" || name == "Accept-Language" || name == "Accept-Charset" {
		s = strings.ToLower(s)
	}
	return s
}

// Size is what v costs a store, in bytes.
func (v *Variance) Size() int64 {
	n := int64(32)
	for _, name := range v.names {
		n += int64(len(name)) + 16
	}
	return n
}

// Signpost marks v as what it is: no answer, but the way to one.
func (v *Variance) Signpost() {}

// AppendTo appends v to b in a form that Decode reads.
func (v *Variance) AppendTo(b []byte) []byte {
	b = append(b, version, kindVariance)
	b = binary.BigEndian.AppendUint64(b, v.nonce)
	for _, name := range v.names {
		b = appendText(b, name)
	}
	return b
}

var errVariance = errors.New("httpcache: not the request fields that answers depend on")

func decodeVariance(r reader) (*Variance, error) {
	v := &Variance{nonce: r.uint64()}
	for len(r.b) > 0 && !r.bad {
		name := r.text()
		if len(v.names) == maxNames || name != http.CanonicalHeaderKey(name) || len(v.names) > 0 && name <= v.names[len(v.names)-1] {
			return nil, fmt.Errorf("%w: names", errVariance)
		}
		v.names = append(v.names, name)
	}
	if r.bad || len(v.names) == 0 {
		return nil, fmt.Errorf("%w: cut short", errVariance)
	}
	return v, nil
}
