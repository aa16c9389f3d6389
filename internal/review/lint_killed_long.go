package review

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// killedLong is LP315: what was switched off for an hour and forgotten.
func killedLong(in *Input) (list []Finding) {
	for _, k := range in.Killed {
		if age := in.Now.Sub(k.Since); age > in.Config.KilledFor {
			list = append(list, Finding{
				Code: "LP315", Name: "switched off for long", Severity: Warning, Subject: cmp.Or(k.Route, "every route"), Basis: k.Since.UTC().Format(time.RFC3339Nano),
				Detail: fmt.Sprintf("%s is off since %s (%d days): %s", strings.Join(k.Parts, ", "), k.Since.UTC().Format("2006-01-02"), days(age), k.Reason),
				Mend:   "switch it on again, or take it out of the file",
			})
		}
	}
	return list
}
