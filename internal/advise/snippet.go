package advise

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	longpole "github.com/longpole/longpole"
)

// Snippet is a setting for a tool that is not ours.
type Snippet struct {
	For  string `json:"for"`  // "envoy", "istio", "nginx", "haproxy" or "resilience4j"
	Text string `json:"text"` // in the tool's own language; comments say what it cannot do
}

// translators make a tool's settings of a policy's; "" = none of them maps.
var translators = []struct {
	tool string
	make func(name string, c longpole.Config) string
}{
	{"envoy", envoy}, {"istio", istio}, {"nginx", nginx}, {"haproxy", haproxy}, {"resilience4j", resilience4j},
}

// snippets are the parts of to that from does not have, in the languages of other tools, with their defaults spelt out.
func snippets(name string, from, to longpole.Config) []Snippet {
	to = only(from, to).WithDefaults()
	var list []Snippet
	for _, t := range translators {
		if text := t.make(slug(name), to); text != "" {
			list = append(list, Snippet{t.tool, text})
		}
	}
	return list
}

// only is what differs in to from from, part by part.
func only(from, to longpole.Config) longpole.Config {
	a, b := reflect.ValueOf(&from).Elem(), reflect.ValueOf(&to).Elem()
	for i := range b.NumField() {
		if reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			b.Field(i).SetZero()
		}
	}
	return to
}

// slug is a name that every tool takes: letters, digits and hyphens.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	if text := strings.Trim(b.String(), "-"); text != "" {
		return text[:min(len(text), 60)]
	}
	return "upstream"
}

// lines collects the text of a snippet.
type lines struct{ strings.Builder }

func (l *lines) add(format string, args ...any) { fmt.Fprintf(l, format+"\n", args...) }

func (l *lines) text() string { return strings.TrimRight(l.String(), "\n") }

// seconds is d as Envoy and Istio write it: 0.25s, 2s.
func seconds(d time.Duration) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.6f", d.Seconds()), "0"), ".") + "s"
}

// milliseconds is d in whole ones, at least 1.
func milliseconds(d time.Duration) int64 {
	return max(1, int64(math.Round(float64(d)/float64(time.Millisecond))))
}

// wholeSeconds is d rounded up.
func wholeSeconds(d time.Duration) int64 { return max(1, int64((d+time.Second-1)/time.Second)) }

// hundredths is a share as a number of percent.
func hundredths(share float64) float64 { return math.Round(share*1000) / 10 }

// attempts is how often a call may be tried under c.
func attempts(c *longpole.Config) int {
	if c.Retry == nil || c.Retry.Off {
		return 1
	}
	return c.Retry.MaxAttempts
}
