package advise

import (
	"fmt"
	"math"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

var replicasEntry = entry{
	kind: KindReplicas, step: StepScale, answers: []string{"LP107", "LP123", "LP106", "LP108"}, cure: replicas, plain: true,
	needs: []string{"what the service itself waits for has room too: its database's connections grow with every replica"},
	watch: []string{"utilisation of each replica", "connections and CPU of the database behind it", "cost"},
}

// mostReplicas is the most that is proposed, as a multiple of what there is, and how busy they then are at most.
const (
	mostReplicas  = 4
	healthyBusy   = 0.7
	enoughOfScale = 0.8 // of what the most would gain
)

// replicas cures a queue in front of workers: more of them.
func replicas(s *situation) (Action, string) {
	t := targetOf(s.finding)
	st := s.corpus.station(t)
	if s.finding.Code == "LP108" && (st == nil || st.busy() < healthyBusy) {
		return Action{}, "" // on the way, as it says
	}
	switch {
	case st != nil:
	case s.finding.Code == "LP106":
		return Action{}, "" // nothing tells that its calls queue
	case s.finding.Segment == trace.SegQueue:
		return s.scaleByHand(), "no forecast for more workers: no answer waits for these messages, so they shorten the queue and leave p99 as it is"
	default:
		_, reason := s.corpus.scaled(t, 0, 1)
		return s.scaleByHand(), "no forecast for more replicas: " + reason
	}
	gain := func(n int) (p plan, effects []Effect, saved float64) {
		p, _ = s.corpus.scaled(t, 0, n)
		effects = s.forecast(p)
		a := Action{Effects: effects}
		return p, effects, a.savedOn(s.route)
	}
	_, _, most := gain(mostReplicas * st.endpoints)
	least := int(math.Ceil(float64(st.endpoints) * st.busy() / healthyBusy))
	for n := max(st.endpoints+1, least); n <= mostReplicas*st.endpoints; n += max(1, st.endpoints/4) {
		p, effects, saved := gain(n)
		if e := (&Action{Effects: effects}).on(s.route); saved < enoughOfScale*most || e == nil || e.gain() < minGain {
			continue
		}
		return Action{
			Kind: KindReplicas, Effects: effects,
			Summary: fmt.Sprintf("run %d replicas of %s in place of %d", n, t.service, st.endpoints),
			Benefit: fmt.Sprintf("workers %.0f%% busy in place of %.0f%%", 100*st.busy()*float64(st.endpoints)/float64(n), 100*st.busy()),
			Cost:    fmt.Sprintf("%.0f%% more machines for this service", 100*(float64(n)/float64(st.endpoints)-1)),
			Risk:    "more replicas only help while they are the bottleneck: " + p.notes[0],
			Text:    scaleText(t.service, n, s.finding.Detail),
		}, ""
	}
	return Action{}, "no more replicas: they would not shorten the wait: " + st.describe(t)
}

// scaleByHand is the advice where the model has nothing to go by.
func (s *situation) scaleByHand() Action {
	d := s.finding.Detail
	a := Action{
		Kind: KindReplicas, Cost: "more machines, or more work for those there are", Risk: "they only help while workers are the bottleneck",
		Summary: fmt.Sprintf("run more workers of %s: what comes waits for one", s.finding.Service),
	}
	if d.Arrival > 0 && d.ServiceRate > 0 && d.Workers > 0 {
		needed := math.Ceil(d.Workers * d.Arrival / d.ServiceRate / healthyBusy)
		a.Summary = fmt.Sprintf("run %.0f workers of %s in place of %.0f: %.1f/s come and %.1f/s are worked off", max(needed, d.Workers+1), s.finding.Service, d.Workers, d.Arrival, d.ServiceRate)
	}
	return a
}

// scaleText is how to do it, and how to have it done. Where workers are all taken and processors are not, an autoscaler that looks at
// processors would do nothing.
func scaleText(service string, n int, d diagnose.Detail) string {
	text := fmt.Sprintf("kubectl scale deployment/%s --replicas=%d\n", service, n)
	if d.Pool != "" && d.Utilisation < healthyBusy {
		return text + fmt.Sprintf(`# or more than %.0f workers in each process: its processors have room
# an autoscaler by CPU would not see this; one that follows Longpole's own number does: docs/autoscaling.md`, d.Workers)
	}
	return text + fmt.Sprintf(`# or by itself, for as long as utilisation stays below 70%%:
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[1]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: %[2]d
  maxReplicas: %[3]d
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}`, service, n, 2*n)
}
