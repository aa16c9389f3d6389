package review

import "fmt"

// replicasAbove is LP317: more replicas than the load, the queue and the latency need.
func replicasAbove(in *Input) (list []Finding) {
	for _, r := range in.Replicas {
		if r.Desired > 0 && r.Ready > r.Desired && r.Active {
			list = append(list, Finding{
				Code: "LP317", Name: "replicas above need", Severity: Info, Subject: r.Name, Size: float64(r.Ready - r.Desired),
				Detail: fmt.Sprintf("%d are ready, %d would do: %s", r.Ready, r.Desired, r.Reason) + idleMoney(in.Config.Prices, r.Ready-r.Desired),
				Mend:   "let the autoscaler follow (docs/autoscaling.md), or take some out",
			})
		}
	}
	return list
}

// hoursInMonth is those of a mean month.
const hoursInMonth = 365.25 * 24 / 12

// idleMoney is what so many replicas cost in a month; "" where they have no price.
func idleMoney(p Prices, replicas int) string {
	if p.ReplicaHour <= 0 {
		return ""
	}
	return fmt.Sprintf("; the others cost %s a month", p.money(float64(replicas)*p.ReplicaHour*hoursInMonth))
}
