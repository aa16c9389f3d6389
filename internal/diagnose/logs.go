package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// Logged is a message that goes with slow or failed traces of a route.
type Logged struct {
	Service   string  `json:"service"`
	Severity  string  `json:"severity"`            // "warn", "error" ...
	Exception string  `json:"exception,omitempty"` // its type; "" = none
	Text      string  `json:"text"`                // with # for each number, at most 200 characters
	Traces    int     `json:"traces"`              // in which it was logged
	BadShare  float64 `json:"bad_share"`           // of the slow and failed traces that have it, 0..1
	GoodShare float64 `json:"good_share"`          // of the others
}

// The rules and bounds of what is told of logs.
const (
	maxMessages  = 2000 // told apart in a route
	maxLogged    = 5    // of a route in a report
	maxLogText   = 200
	leastLogged  = 3    // slow or failed traces that must have a message
	leastBad     = 0.05 // of them, the same
	loggedTwice  = 2.0  // times as frequent among them as among the others
	leastLogging = trace.SeverityWarn
)

// logsOf is the logs of traces that have any, by the trace's ID.
func logsOf(traces []trace.Trace) map[string][]trace.Log {
	var logs map[string][]trace.Log
	for i := range traces {
		if len(traces[i].Logs) == 0 {
			continue
		}
		if logs == nil {
			logs = make(map[string][]trace.Log)
		}
		logs[traces[i].ID] = append(logs[traces[i].ID], traces[i].Logs...)
	}
	return logs
}

// logsJoined is c with those records as joined that the traces have: a baseline may have taken its part of them away, and whoever
// has traces with their logs need not have counted.
func logsJoined(c trace.LogCounts, traces []trace.Trace) trace.LogCounts {
	joined := 0
	for i := range traces {
		joined += len(traces[i].Logs)
	}
	c.Records += joined - c.Joined
	c.Joined = joined
	return c
}

// message tells messages apart.
type message struct {
	service, severity, exception, text string
}

// mentions is how often one was logged.
type mentions struct {
	traces, badTraces int
	bad, good         float64 // traces that those stand for
}

// logged finds the messages that go with slow or failed traces, the clearest first.
func (v *view) logged(logs map[string][]trace.Log) []Logged {
	if len(logs) == 0 || len(v.slow) == 0 {
		return nil
	}
	limit := v.slow[0].duration
	seen := make(map[message]*mentions)
	bad, good := 0.0, 0.0
	for i := range v.samples {
		s := &v.samples[i]
		isBad := s.duration >= limit || s.tree.Spans[s.root].Failed
		if isBad {
			bad += s.stands()
		} else {
			good += s.stands()
		}
		for key := range messagesOf(logs[s.tree.ID]) {
			m := seen[key]
			if m == nil {
				if len(seen) >= maxMessages {
					continue
				}
				m = &mentions{}
				seen[key] = m
			}
			m.traces++
			if isBad {
				m.badTraces++
				m.bad += s.stands()
			} else {
				m.good += s.stands()
			}
		}
	}
	var list []Logged
	for key, m := range seen {
		l := Logged{
			Service: key.service, Severity: key.severity, Exception: key.exception, Text: key.text,
			Traces: m.traces, BadShare: ratio(m.bad, bad), GoodShare: ratio(m.good, good),
		}
		if m.badTraces >= min(leastLogged, len(v.slow)) && l.BadShare >= leastBad && l.BadShare >= loggedTwice*l.GoodShare {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b Logged) int {
		return cmp.Or(cmp.Compare(b.BadShare-b.GoodShare, a.BadShare-a.GoodShare), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Text, b.Text),
			cmp.Compare(a.Exception, b.Exception), cmp.Compare(a.Severity, b.Severity))
	})
	return list[:min(len(list), maxLogged)]
}

// messagesOf is the different messages of one trace that are worth telling.
func messagesOf(logs []trace.Log) map[message]bool {
	out := make(map[message]bool)
	for i := range logs {
		l := &logs[i]
		if l.Severity >= leastLogging || l.Exception != "" {
			out[message{l.Service, l.Severity.String(), l.Exception, plainMessage(l.Body)}] = true
		}
	}
	return out
}

// plainMessage is a message in one line with # for each word that holds a digit: IDs, addresses, amounts.
func plainMessage(body string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(body) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if at := strings.IndexAny(word, "0123456789"); at >= 0 {
			head := strings.LastIndexAny(word[:at], "=:(['\"") + 1
			word = word[:head] + "#"
		}
		if b.Len()+len(word) > maxLogText {
			b.WriteString("…")
			break
		}
		b.WriteString(word)
	}
	return strings.ToValidUTF8(b.String(), "�")
}

// tell adds what was logged to the findings about the same service.
func (r *Route) tell(logged []Logged) {
	r.Logged = logged
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, l := range logged {
			if l.Service == f.Service {
				f.Evidence = append(f.Evidence, l.String())
			}
		}
	}
}

// String says it in one line.
func (l Logged) String() string {
	what := l.Severity
	if l.Exception != "" {
		what += " " + l.Exception
	}
	return fmt.Sprintf("logged in %s of the slow and failed traces, and in %s of the others: %s %q", percent(l.BadShare), percent(l.GoodShare), what, l.Text)
}
