package diagnose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/trace"
)

// TestWhatIsLoggedWithSlowTracesIsEvidence: the message of the slow ones, not that of all, and with its numbers left out.
func TestWhatIsLoggedWithSlowTracesIsEvidence(t *testing.T) {
	traces := shopTraces(t, 400)
	for i := range traces {
		traces[i].Logs = []trace.Log{
			{TraceID: traces[i].ID, Service: "shop", Severity: trace.SeverityWarn, Body: "the cache is cold"},
			{TraceID: traces[i].ID, Service: "shop", Severity: trace.SeverityInfo, Body: fmt.Sprint("served ", i)},
		}
		if i >= 390 {
			l := trace.Log{TraceID: traces[i].ID, Service: "shop", Severity: trace.SeverityError, Exception: "PoolTimeout", Body: fmt.Sprintf("no connection after %d ms\n id=%x", i, i)}
			traces[i].Logs = append(traces[i].Logs, l, l)
		}
	}
	r := Run(traces, Options{}).Routes[0]
	if len(r.Logged) != 1 {
		t.Fatalf("%+v", r.Logged)
	}
	l := r.Logged[0]
	if l.Text != "no connection after # ms id=#" || l.Exception != "PoolTimeout" || l.Severity != "error" || l.Traces != 10 || l.BadShare < 0.99 || l.GoodShare > 0.02 {
		t.Errorf("%+v", l)
	}
	told := 0
	for _, f := range r.Findings {
		if strings.Contains(strings.Join(f.Evidence, "\n"), `error PoolTimeout "no connection after # ms id=#"`) {
			told++
			if f.Service != "shop" {
				t.Errorf("told of %s", f.Service)
			}
		}
	}
	if told == 0 {
		t.Errorf("no finding tells of it: %+v", r.Findings)
	}
}

// TestMessagesAreBounded: a flood of different messages is cut, and rare ones are not told.
func TestMessagesAreBounded(t *testing.T) {
	traces := shopTraces(t, 300)
	for i := range traces {
		for k := range 40 {
			word := strings.Repeat(string(rune('a'+k%26)), 1+k/26) + strings.Repeat("x", i)
			traces[i].Logs = append(traces[i].Logs, trace.Log{Service: "shop", Severity: trace.SeverityError, Body: word + strings.Repeat(" long", 100)})
		}
	}
	r := Run(traces, Options{}).Routes[0]
	if len(r.Logged) > maxLogged {
		t.Errorf("%d messages", len(r.Logged))
	}
	for _, l := range r.Logged {
		if len(l.Text) > maxLogText+10 {
			t.Errorf("%d characters", len(l.Text))
		}
	}
	if got := plainMessage("a=17 b:(x9 0xff µ12 \xff"); got != "a=# b:(# # # �" {
		t.Errorf("%q", got)
	}
}
