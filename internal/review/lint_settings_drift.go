package review

import "fmt"

// mostDrift is how many settings are named; of further ones only the number is.
const mostDrift = 20

// settingsDrift is LP314: what is verified in another environment is verified under other settings.
func settingsDrift(in *Input) (list []Finding) {
	for i, d := range in.Drift {
		if i == mostDrift {
			return append(list, Finding{
				Code: "LP314", Name: "settings drift", Severity: Warning, Subject: "further settings",
				Detail: fmt.Sprintf("%d more differ", len(in.Drift)-mostDrift), Mend: "compare the two files",
			})
		}
		list = append(list, Finding{
			Code: "LP314", Name: "settings drift", Severity: Warning, Subject: d.Path, Basis: d.Staging + " / " + d.Production,
			Detail: fmt.Sprintf("%s in the environment before, %s here", d.Staging, d.Production),
			Mend:   "set both alike, or verify the difference as a change of its own",
		})
	}
	return list
}
