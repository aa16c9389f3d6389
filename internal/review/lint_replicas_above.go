package review

import "fmt"

// replicasAbove is LP317: more replicas than the load, the queue and the latency need.
func replicasAbove(in *Input) (list []Finding) {
	for _, r := range in.Replicas {
		if r.Desired > 0 && r.Ready > r.Desired && r.Active {
			list = append(list, Finding{
				Code: "LP317", Name: "replicas above need", Severity: Info, Subject: r.Name,
				Detail: fmt.Sprintf("%d are ready, %d would do: %s", r.Ready, r.Desired, r.Reason),
				Mend:   "let the autoscaler follow (docs/autoscaling.md), or take some out",
			})
		}
	}
	return list
}
