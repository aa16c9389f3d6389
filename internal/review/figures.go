package review

import (
	"slices"
	"time"
)

// Figures are what a review measured, for a later one to compare with.
type Figures struct {
	At        time.Time          `json:"at"`
	HitRatios map[string]float64 `json:"cache_hit_ratios,omitempty"` // by route
	Poles     []Pole             `json:"long_poles,omitempty"`
	Costs     []Cost             `json:"costs,omitempty"`
	Databases []Database         `json:"databases,omitempty"`
}

func figures(in *Input) Figures {
	f := Figures{At: in.Now, HitRatios: map[string]float64{}, Poles: in.Poles, Costs: costs(in), Databases: slices.Clone(in.Systems.Databases)}
	f.keepUnseen(in)
	for _, r := range in.Routes {
		if ratio, ok := hitRatio(r); ok {
			f.HitRatios[r.Name] = ratio
		}
	}
	return f
}

// keepUnseen keeps what the last review knew of databases that were not looked at since, as just after a restart: since when
// their scans are counted must not be forgotten for it. After two periods they are.
func (f *Figures) keepUnseen(in *Input) {
	if in.Last == nil {
		return
	}
	for _, d := range in.Last.Figures.Databases {
		if len(f.Databases) < mostDatabases && f.database(d.Name) == nil && in.Now.Sub(d.At) <= 2*in.Config.Every {
			f.Databases = append(f.Databases, d)
		}
	}
}

// earlier is the figures of earlier reviews that a review may compare with, the oldest first. They are copies: a review must
// not hold on to those before it.
func (in *Input) earlier() (list []*Figures) {
	if in.Last == nil {
		return nil
	}
	last := in.Last.Figures
	for _, f := range []*Figures{in.Last.Baseline, in.Last.Next, &last} {
		if f != nil {
			list = append(list, f)
		}
	}
	return list
}

// baseline is the figures that a review compares with: the newest of earlier ones that are half a period old, so that reviews
// by hand do not hide what grew since the one on schedule. nil = there is nothing to compare with.
func (in *Input) baseline() *Figures {
	for _, f := range slices.Backward(in.earlier()) {
		if in.Now.Sub(f.At) >= in.Config.Every/2 {
			return f
		}
	}
	return nil
}

// next is the figures that will be the baseline once they are old enough: however often somebody reviews, there are some.
func (in *Input) next() *Figures {
	base := in.baseline()
	for _, f := range in.earlier() {
		if base == nil || f.At.After(base.At) {
			return f
		}
	}
	return nil
}

// database finds one by name; nil = it was not looked at.
func (f *Figures) database(name string) *Database {
	if f == nil {
		return nil
	}
	for i := range f.Databases {
		if f.Databases[i].Name == name {
			return &f.Databases[i]
		}
	}
	return nil
}

// countedSince fills in since when the scans of indexes are counted. A server that was never reset does not say; then it
// is since this was first looked at, unless its counts fell, as after a crash.
func countedSince(in *Input) {
	for i := range in.Systems.Databases {
		d, was := &in.Systems.Databases[i], in.lastDatabase(in.Systems.Databases[i].Name)
		d.Scans = in.Now
		switch {
		case d.Indexes != nil && !d.Indexes.Since.IsZero():
			d.Scans = d.Indexes.Since
		case was != nil && !was.Scans.IsZero() && d.scans() >= was.scans():
			d.Scans = was.Scans
		}
		d.Unused = d.unusedSince(was, in.Now)
	}
}

// unusedSince is since when each unused index is known to be there. The server does not tell when it was made: one that the
// last review did not find is new, and one that the first review finds is taken to be as old as its statistics. nil = no
// review has seen the indexes yet.
func (d *Database) unusedSince(was *Database, now time.Time) map[string]time.Time {
	if d.Indexes == nil {
		if was == nil {
			return nil
		}
		return was.Unused
	}
	all := make(map[string]time.Time)
	for i := range d.Indexes.Unused {
		x := &d.Indexes.Unused[i]
		if !costly(x) || len(all) == mostKnown {
			continue
		}
		since := d.Scans
		if was != nil && was.Unused != nil {
			var known bool
			if since, known = was.Unused[x.Schema+"."+x.Name]; !known {
				since = now
			}
		}
		all[x.Schema+"."+x.Name] = since
	}
	return all
}

// lastDatabase is what the last review knew of a database, however young it is.
func (in *Input) lastDatabase(name string) *Database {
	if in.Last == nil {
		return nil
	}
	return in.Last.Figures.database(name)
}

// scans is all scans from end to end that the server counts.
func (d *Database) scans() (sum float64) {
	for _, t := range d.Tables {
		sum += t.SeqScans
	}
	return sum
}

func (d *Database) table(name string) (Table, bool) {
	if d != nil {
		for _, t := range d.Tables {
			if t.Name == name {
				return t, true
			}
		}
	}
	return Table{}, false
}

func (d *Database) statement(key string) (Statement, bool) {
	if d != nil {
		for _, s := range d.Statements {
			if s.Key == key {
				return s, true
			}
		}
	}
	return Statement{}, false
}
