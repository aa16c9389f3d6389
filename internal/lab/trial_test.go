package lab

import (
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// small is a system that nobody tuned anything to: a chain of three, with one of each of the other parts.
const small = `
name: small
about: seats reads its whole table
services:
  - name: site
    operations:
      - name: book
        steps:
          - cpu: {fixed: 1ms}
          - call: {to: seats.find, timeout: 5s, retries: 1}
          - parallel:
              - call: {to: fares.get, cache: {in: redis, ttl: 10s}}
              - call: {to: maps.draw, share: 50%, ignore: true}
  - name: seats
    replicas: 2
    operations:
      - name: find
        answer: 4KiB
        steps:
          - query: {store: db, table: seats, where: flight, rows: 3}
          - publish: {queue: audit}
  - name: fares
    operations: [{name: get, steps: [{name: add up, cpu: {fixed: 1ms}}]}]
  - name: maps
    external: true
    operations: [{name: draw, steps: [{sleep: {fixed: 1ms}}]}]
stores:
  - {name: db, tables: [{name: seats, rows: 200000}]}
caches: [{name: redis}]
queues: [{name: audit, work: {fixed: 1ms}}]
gateway: [{service: site}, {service: seats}]
load:
  warmup: 500ms
  duration: 4s
  routes: [{to: site.book, rate: 15, keys: 100000}]
truth: {class: database, service: seats, action: index}
`

func TestScenarioRunsFromEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole system on real sockets")
	}
	spec, err := scenario.Read("small.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	var traces []trace.Trace
	var facts evidence.Facts
	o, err := Run(t.Context(), spec, TrialOptions{Seed: 1, Canary: 5 * time.Second, Traces: func(all []trace.Trace, f evidence.Facts) { traces, facts = all, f }})
	if err != nil {
		t.Fatal(err)
	}
	if o.Before.Calls < 8 || o.Before.Errors > 0.5 || len(traces) < 8 || o.Seconds < 4 {
		t.Errorf("before: %+v of %d traces", o.Before, len(traces))
	}
	kinds := map[string]string{} // what was seen, and below what
	for _, tr := range traces {
		byID := map[string]string{}
		for _, s := range tr.Spans {
			byID[s.ID] = s.Service + " " + s.Kind.String()
		}
		for _, s := range tr.Spans {
			if what := s.Service + " " + s.Kind.String() + " " + s.Name; kinds[what] == "" { // the parent of one may still run
				kinds[what] = byID[s.Parent]
			}
		}
	}
	for what, parent := range map[string]string{
		"site server GET /site/book":          "",
		"site client GET /seats/find":         "site server",
		"site client GET":                     "site server",
		"site client GET /maps/draw":          "site server",
		"fares internal add up":               "fares server",
		"seats client SELECT seats":           "seats server",
		"seats producer send audit":           "seats server",
		"audit-worker consumer process audit": "seats producer",
	} {
		if got, ok := kinds[what]; !ok || parent != "" && got != parent {
			t.Errorf("%q is below %q; want %q (seen: %t)", what, got, parent, ok)
		}
	}
	for what := range kinds {
		if strings.HasPrefix(what, "maps ") {
			t.Errorf("a service of somebody else sent %q", what)
		}
	}
	if best, ok := facts.Postgres[0].Asked[0].Index(); !ok || best.Columns[0] != "flight" {
		t.Errorf("the facts do not tell of the index: %+v", facts.Postgres[0].Asked)
	}
	if facts.Queues[0].Arrival == 0 || facts.Redis[0].Stats.Lookups == 0 || *facts.Services[0].Runtime.CPU == 0 || len(facts.Services) != 4 {
		t.Errorf("the facts are %+v", facts)
	}
}
