package review

import (
	"fmt"
	"time"
)

const (
	grownTable = 1.2      // times as many rows
	largeTable = 32 << 20 // bytes; smaller ones are read in no time
	leastScans = 100      // from end to end since the last review
	endToEnd   = 0.5      // of the rows that a scan reads on average, to be one
)

// tableGrowth is LP323: a table that grew by a fifth since the last review, and what that will do to those who read it from end
// to end: their time is that of its rows.
func tableGrowth(in *Input) (list []Finding) {
	base := in.baseline()
	for _, d := range in.Systems.Databases {
		was := base.database(d.Name)
		for _, t := range d.Tables {
			b, known := was.table(t.Name)
			if !known || t.Bytes < largeTable || !(b.Rows > 0) || t.Rows < grownTable*b.Rows {
				continue
			}
			took := d.At.Sub(was.At)
			if took <= 0 {
				continue
			}
			perDay := (t.Rows - b.Rows) / (took.Hours() / 24)
			f := Finding{
				Code: "LP323", Name: "table grows", Severity: Info, Subject: t.Name + " of " + d.Name, Size: t.Rows,
				Detail: fmt.Sprintf("%s rows, %s on %s: %+.0f %%, %s; twice as many on %s if it goes on", number(t.Rows), number(b.Rows), was.At.UTC().Format(time.DateOnly),
					100*(t.Rows/b.Rows-1), sizeText(t.Bytes), after(in.Now, t.Rows/perDay)),
				Mend: "nothing while it is read by index; else archive or partition it before it doubles",
			}
			if scans, each := scansBetween(b, t); scans >= leastScans && each >= endToEnd*b.Rows {
				ahead := in.Config.Every.Hours() / 24
				f.Severity, f.Basis = Warning, "scanned"
				f.Detail += fmt.Sprintf(". It was read from end to end %s times: each takes %.3g times as long as at the last review, and %.3g times by the next", number(scans), t.Rows/b.Rows, (t.Rows+perDay*ahead)/b.Rows)
				f.Mend = "find who scans it (`longpole probe`, seq_scans) and give them an index, or a smaller table"
			}
			list = append(list, f)
		}
	}
	return list
}

// scansBetween is how often a table was read from end to end between two looks, and how many rows that were each time. The
// server's counts begin anew when they are reset.
func scansBetween(before, now Table) (scans, each float64) {
	if now.SeqScans < before.SeqScans || now.SeqRows < before.SeqRows {
		before = Table{}
	}
	scans = now.SeqScans - before.SeqScans
	if scans <= 0 {
		return 0, 0
	}
	return scans, (now.SeqRows - before.SeqRows) / scans
}

// after is the date in so many days; a far one is not told.
func after(now time.Time, days float64) string {
	if days > 3650 {
		return "no day of the next ten years"
	}
	return now.Add(time.Duration(days * 24 * float64(time.Hour))).UTC().Format(time.DateOnly)
}
