package review

import (
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

const (
	unusedFor   = 14 * 24 * time.Hour // scans must have been counted for so long: a report of the month's end is still missed
	unusedBytes = 8 << 20             // smaller ones cost little
	mostUnused  = 20                  // of a database; of further ones only the number is told
	mostKnown   = 1000                // of a database, the largest, that are remembered from one review to the next
)

// costly reports whether x would be worth dropping, if nobody uses it.
func costly(x *evidence.Index) bool {
	return x.Bytes >= unusedBytes && x.Valid && !x.Unique && !x.Constraint
}

// indexUnused is LP318: an index that no scan used costs each write, memory and the planner, and serves nobody.
func indexUnused(in *Input) (list []Finding) {
	for _, d := range in.Systems.Databases {
		x := d.Indexes
		if x == nil || x.Replica {
			continue
		}
		told, more := 0, 0
		for _, i := range x.Unused {
			counted := in.Now.Sub(later(d.Scans, d.Unused[i.Schema+"."+i.Name]))
			switch {
			case !costly(&i) || counted < unusedFor:
			case told == mostUnused:
				more++
			default:
				told++
				list = append(list, Finding{
					Code: "LP318", Name: "index unused", Severity: Info, Subject: fmt.Sprintf("%s.%s of %s", i.Schema, i.Name, d.Name), Size: float64(i.Bytes),
					Detail: fmt.Sprintf("%s on %s was used by no scan in %d days", sizeText(i.Bytes), i.Table, days(counted)),
					Mend:   fmt.Sprintf("if no replica and no yearly job uses it either: DROP INDEX CONCURRENTLY %s.%s", quoted(i.Schema), quoted(i.Name)),
				})
			}
		}
		if more > 0 {
			list = append(list, Finding{
				Code: "LP318", Name: "index unused", Severity: Info, Subject: "further indexes of " + d.Name, Size: float64(more),
				Detail: fmt.Sprintf("%d more were used by no scan", more), Mend: "`longpole probe -o json` names them",
			})
		}
	}
	return list
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// quoted is a name as SQL takes it.
func quoted(name string) string {
	plain := name != ""
	for i, c := range name {
		plain = plain && (c >= 'a' && c <= 'z' || c == '_' || i > 0 && c >= '0' && c <= '9')
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
