package load

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// ErrTemplate says that a text with placeholders cannot be read.
var ErrTemplate = errors.New("load: template")

// The bounds of a template.
const (
	maxTemplate = 16 << 20 // of its text
	maxHoles    = 1024
	maxHex      = 4096
)

// Template is a text whose placeholders get a value for each call:
//
//	{{seq}}              0, 1, 2, ... by call of the target; {{seq 1000}} starts there, {{seq 1000 5}} in steps of 5
//	{{random 1 1000}}    a whole number, both ends included
//	{{hex 16}}           so many hexadecimal digits
//	{{uuid}}             a UUID of version 4
//	{{pick a b c}}       one of the words
//
// Equal seeds give equal values. A Template is immutable.
type Template struct {
	parts []part
}

// part is a literal text, or a hole when draw is set.
type part struct {
	text string
	draw func(b *strings.Builder, r *rand.Rand, seq uint64)
}

// ParseTemplate reads text; its error wraps ErrTemplate and says what is wrong.
func ParseTemplate(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("%w: %d bytes; want at most 16 MiB", ErrTemplate, len(text))
	}
	t := &Template{}
	holes := 0
	for text != "" {
		literal, rest, found := strings.Cut(text, "{{")
		if literal != "" {
			t.parts = append(t.parts, part{text: literal})
		}
		if !found {
			break
		}
		inside, after, found := strings.Cut(rest, "}}")
		if !found {
			return nil, fmt.Errorf("%w: {{ without }}", ErrTemplate)
		}
		if holes++; holes > maxHoles {
			return nil, fmt.Errorf("%w: more than %d placeholders", ErrTemplate, maxHoles)
		}
		draw, err := hole(strings.Fields(inside))
		if err != nil {
			return nil, fmt.Errorf("%w: {{%s}}: %w", ErrTemplate, strings.TrimSpace(inside), err)
		}
		t.parts = append(t.parts, part{draw: draw})
		text = after
	}
	return t, nil
}

// hole reads the inside of a placeholder.
func hole(words []string) (func(*strings.Builder, *rand.Rand, uint64), error) {
	name := ""
	if len(words) > 0 {
		name, words = words[0], words[1:]
	}
	switch name {
	case "seq":
		n, err := integers(words, 0, 2)
		if err != nil {
			return nil, err
		}
		start, step := int64(0), int64(1)
		if len(n) > 0 {
			start = n[0]
		}
		if len(n) > 1 {
			step = n[1]
		}
		return func(b *strings.Builder, _ *rand.Rand, seq uint64) {
			b.WriteString(strconv.FormatInt(start+step*int64(seq), 10))
		}, nil
	case "random":
		n, err := integers(words, 2, 2)
		if err != nil {
			return nil, err
		}
		if n[1] < n[0] || n[1]-n[0] < 0 || n[1]-n[0] == 1<<63-1 {
			return nil, errors.New("want two whole numbers, the smaller one first")
		}
		return func(b *strings.Builder, r *rand.Rand, _ uint64) {
			b.WriteString(strconv.FormatInt(n[0]+r.Int64N(n[1]-n[0]+1), 10))
		}, nil
	case "hex":
		n, err := integers(words, 1, 1)
		if err != nil || n[0] < 1 || n[0] > maxHex {
			return nil, fmt.Errorf("want a number of digits, 1 up to %d", maxHex)
		}
		return func(b *strings.Builder, r *rand.Rand, _ uint64) { digits(b, r, int(n[0])) }, nil
	case "uuid":
		return uuid, errWords(len(words) > 0)
	case "pick":
		if len(words) == 0 {
			return nil, errors.New("want at least one word")
		}
		return func(b *strings.Builder, r *rand.Rand, _ uint64) { b.WriteString(words[r.IntN(len(words))]) }, nil
	}
	return nil, errors.New("want seq, random, hex, uuid or pick")
}

func errWords(too bool) error {
	if too {
		return errors.New("takes nothing more")
	}
	return nil
}

func integers(words []string, least, most int) ([]int64, error) {
	if len(words) < least || len(words) > most {
		return nil, fmt.Errorf("want %d to %d whole numbers", least, most)
	}
	var all []int64
	for _, w := range words {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", w)
		}
		all = append(all, n)
	}
	return all, nil
}

func digits(b *strings.Builder, r *rand.Rand, n int) {
	const hexadecimal = "0123456789abcdef"
	for range n {
		b.WriteByte(hexadecimal[r.Uint32()&15])
	}
}

// uuid is that of RFC 9562 section 5.4.
func uuid(b *strings.Builder, r *rand.Rand, _ uint64) {
	var raw [16]byte
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80
	h := hex.EncodeToString(raw[:])
	b.WriteString(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
}

// Fixed tells whether t has no placeholder.
func (t *Template) Fixed() bool {
	return len(t.parts) == 0 || len(t.parts) == 1 && t.parts[0].draw == nil
}

// Text fills the placeholders for call number seq, which counts from 0.
func (t *Template) Text(r *rand.Rand, seq uint64) string {
	switch {
	case len(t.parts) == 0:
		return ""
	case t.Fixed():
		return t.parts[0].text
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.draw == nil {
			b.WriteString(p.text)
		} else {
			p.draw(&b, r, seq)
		}
	}
	return b.String()
}
