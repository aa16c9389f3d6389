package review

import "time"

// Figures are what a review measured, for a later one to compare with.
type Figures struct {
	At        time.Time          `json:"at"`
	HitRatios map[string]float64 `json:"cache_hit_ratios,omitempty"` // by route
	Poles     []Pole             `json:"long_poles,omitempty"`
	Costs     []Cost             `json:"costs,omitempty"`
	Databases []Database         `json:"databases,omitempty"`
}

func figures(in *Input) Figures {
	f := Figures{At: in.Now, HitRatios: map[string]float64{}, Poles: in.Poles, Costs: costs(in), Databases: in.Systems.Databases}
	for _, r := range in.Routes {
		if ratio, ok := hitRatio(r); ok {
			f.HitRatios[r.Name] = ratio
		}
	}
	return f
}

// baseline is the figures that a review compares with: those of the last one, unless that is younger than half a period.
// Then it is what the last one compared with, so that a review by hand does not hide what grew since the one on
// schedule. nil = there is nothing to compare with.
func (in *Input) baseline() *Figures {
	switch {
	case in.Last == nil:
		return nil
	case in.Now.Sub(in.Last.Figures.At) >= in.Config.Every/2:
		return &in.Last.Figures
	}
	return in.Last.Baseline
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
		d := &in.Systems.Databases[i]
		d.Scans = in.Now
		if d.Indexes != nil && !d.Indexes.Since.IsZero() {
			d.Scans = d.Indexes.Since
			continue
		}
		if was := in.lastDatabase(d.Name); was != nil && !was.Scans.IsZero() && d.scans() >= was.scans() {
			d.Scans = was.Scans
		}
	}
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
