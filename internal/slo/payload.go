package slo

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Payload is the body of a webhook in the form of Prometheus Alertmanager (version 4), which chat systems and on-call tools
// take as it is.
type Payload struct {
	Version           string            `json:"version"` // "4"
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"` // firing or resolved
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"` // "" = not known
	Alerts            []PayloadAlert    `json:"alerts"`      // one
}

// PayloadAlert is the alert of a Payload.
type PayloadAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"` // zero while it fires
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"` // the same for all news of one alert
}

// Payload is e as the body of a webhook; externalURL is where people reach the gateway's page, "" if it is not known.
func (e Event) Payload(externalURL string) Payload {
	s := e.Status
	labels := map[string]string{"alertname": "LongpoleErrorBudgetBurn", "slo": s.Name, "route": s.Route, "severity": string(e.Alert.Severity)}
	notes := map[string]string{"summary": e.Summary(), "description": e.Describe()}
	a := PayloadAlert{
		Status: string(e.Alert.State), Labels: labels, Annotations: notes, StartsAt: e.Alert.Started, GeneratorURL: externalURL,
		Fingerprint: fingerprint(s.Name, string(e.Alert.Severity)),
	}
	if e.Alert.State == Resolved {
		a.EndsAt = e.Alert.Since
	}
	return Payload{
		Version: "4", GroupKey: "{}:{slo=" + strconv.Quote(s.Name) + "}", Status: a.Status, Receiver: "longpole",
		GroupLabels: map[string]string{"slo": s.Name}, CommonLabels: labels, CommonAnnotations: notes,
		ExternalURL: externalURL, Alerts: []PayloadAlert{a},
	}
}

func fingerprint(parts ...string) string {
	h := fnv.New64a()
	h.Write([]byte(strings.Join(parts, "\x00")))
	return fmt.Sprintf("%016x", h.Sum64())
}

// Summary is one line of what happened.
func (e Event) Summary() string {
	s := e.Status
	if e.Alert.State == Resolved {
		return fmt.Sprintf("Resolved: %s of route %s no longer burns its error budget; %s remains.", s.Name, s.Route, percent(s.Remaining))
	}
	w := e.fastest()
	return fmt.Sprintf("%s of route %s burns its error budget %.1f times too fast over %s; %s remains.", s.Name, s.Route, w.LongBurn, w.LongText, percent(s.Remaining))
}

// Describe is what somebody who was just woken wants to know next: how much is bad, until when the budget lasts, and what
// the bad calls of the period are put down to.
func (e Event) Describe() string {
	s := e.Status
	var b strings.Builder
	if s.Description != "" {
		b.WriteString(s.Description + " ")
	}
	fmt.Fprintf(&b, "Promised: %s good over %s; %s were.", percent(s.Target), s.Period, percent(s.Good))
	if w := e.fastest(); e.Alert.State == Firing {
		fmt.Fprintf(&b, " Bad in the last %s: %d of %d calls.", w.LongText, w.Bad, w.Calls)
	}
	if s.Exhausted != nil {
		if s.Remaining <= 0 {
			b.WriteString(" The error budget is used up.")
		} else {
			fmt.Fprintf(&b, " If it goes on, the error budget is used up at %s.", s.Exhausted.UTC().Format(time.RFC3339))
		}
	}
	var by []string
	for _, c := range s.BurnedBy[:min(len(s.BurnedBy), 3)] {
		by = append(by, percent(c.Ratio)+" "+c.String())
	}
	if len(by) > 0 {
		b.WriteString(" Burned by: " + strings.Join(by, ", ") + ".")
	}
	return b.String()
}

// fastest is the window that holds with the highest burn; without one, that with the highest burn of the alert's severity.
func (e Event) fastest() Burn {
	mine := slices.DeleteFunc(slices.Clone(e.Status.Burns), func(b Burn) bool { return b.Severity != e.Alert.Severity })
	if len(mine) == 0 {
		return Burn{}
	}
	return slices.MaxFunc(mine, func(a, b Burn) int {
		return cmp.Or(compareFlags(a.Holds, b.Holds), cmp.Compare(a.LongBurn, b.LongBurn))
	})
}

func compareFlags(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// String is c in words.
func (c Cause) String() string {
	if c == (Cause{}) {
		return "unexplained"
	}
	parts := slices.DeleteFunc([]string{c.Segment, c.Service, c.Operation}, func(part string) bool { return part == "" })
	return strings.Join(parts, " ")
}

// percent keeps as many digits as a target of four nines needs.
func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 5, 64) + " %" }
