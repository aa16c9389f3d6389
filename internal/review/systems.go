package review

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
)

// Systems is what the databases and pools behind the routes were seen to do.
type Systems struct {
	Since     time.Time // since when figures count; zero = nothing was seen
	Databases []Database
	Pools     []Pool
}

// Database is one of PostgreSQL.
type Database struct {
	Name       string                    `json:"name"`
	At         time.Time                 `json:"at"`               // of the newest look
	Scans      time.Time                 `json:"scans_since"`      // since when the scans of its indexes are counted, as far as is known
	Tables     []Table                   `json:"tables,omitempty"` // the largest
	Statements []Statement               `json:"statements,omitempty"`
	Unused     map[string]time.Time      `json:"unused_since"` // by schema.index: since when it is known to be there; nil = indexes were not read yet
	Indexes    *evidence.PostgresIndexes `json:"-"`            // nil = not read
}

// Table is how large a table is, and how often it was read from end to end.
type Table struct {
	Name     string  `json:"name"` // schema.table
	Rows     float64 `json:"rows"`
	Bytes    int64   `json:"bytes"`
	SeqScans float64 `json:"seq_scans"` // since the server's statistics began, as SeqRows
	SeqRows  float64 `json:"seq_rows"`
}

// Statement is one of those that took most time, without its values.
type Statement struct {
	Key     string  `json:"key"`  // the same for equal texts
	Text    string  `json:"text"` // its beginning
	Calls   float64 `json:"calls"`
	TotalMS float64 `json:"total_ms"`
	Plan    string  `json:"plan,omitempty"` // shape of the newest; "" = not known
	Generic bool    `json:"generic,omitempty"`
}

// MeanMS is the time of one call in the server, 0 without calls.
func (s Statement) MeanMS() float64 {
	if s.Calls == 0 {
		return 0
	}
	return s.TotalMS / s.Calls
}

// Pool is the pool of connections of a service, all its processes together.
type Pool struct {
	Service   string
	Name      string
	Max       float64 // of one process, as what follows
	Used      float64 // at its highest
	Windows   int     // that were looked at
	Exhausted int     // of those: in which somebody waited and nothing was free
	WaitP99   time.Duration
	Timeouts  float64
}

// Survey adds up what probes read. Its figures reach back one to two periods, as those of Meters. Make one with NewSurvey.
// Not for concurrent use; told the time by what it is given.
type Survey struct {
	now, before survey
	seen        time.Time // end of the newest facts
}

// survey is one period.
type survey struct {
	since     time.Time
	databases map[string]*surveyed
	pools     map[string]*Pool
}

type surveyed struct {
	Database
	statements map[string]*Statement
}

// The bounds of a survey.
const (
	mostDatabases  = evidence.MaxStores
	mostStatements = 2 * evidence.MaxStatements // of a database; the dearest stay
	mostPools      = 1000
	mostText       = 160 // bytes of a statement's text
)

func newPeriod() survey {
	return survey{databases: map[string]*surveyed{}, pools: map[string]*Pool{}}
}

// NewSurvey has seen nothing yet.
func NewSurvey() *Survey { return &Survey{now: newPeriod(), before: newPeriod()} }

// Observe takes what was read over one window; the same window twice counts once.
func (s *Survey) Observe(f evidence.Facts) {
	if !f.To.After(s.seen) {
		return
	}
	s.seen = f.To
	if s.now.since.IsZero() {
		s.now.since = f.From
	}
	for i := range f.Postgres {
		s.now.database(&f.Postgres[i], f.To)
	}
	for i := range f.Services {
		for _, p := range f.Services[i].Pools {
			s.now.pool(f.Services[i].Service, p)
		}
	}
}

// Turn begins a new period; the one before it still counts.
func (s *Survey) Turn() { s.before, s.now = s.now, newPeriod() }

func (y *survey) database(f *evidence.PostgresFacts, at time.Time) {
	d := y.databases[f.Name]
	if d == nil {
		if len(y.databases) >= mostDatabases {
			return
		}
		d = &surveyed{Database: Database{Name: f.Name}, statements: map[string]*Statement{}}
		y.databases[f.Name] = d
	}
	d.At = at
	if f.Indexes != nil {
		d.Indexes = f.Indexes
	}
	if len(f.Tables) > 0 {
		d.Tables = nil
	}
	for _, t := range f.Tables[:min(len(f.Tables), evidence.MaxTables)] {
		d.Tables = append(d.Tables, Table{Name: t.Schema + "." + t.Name, Rows: rowsOf(t, at), Bytes: t.Bytes, SeqScans: t.SeqScans, SeqRows: t.SeqRows})
	}
	for _, x := range f.Top {
		if s := d.statement(x.Text); s != nil {
			s.Calls += x.Calls
			s.TotalMS += x.TotalMS
		}
	}
	for i := range f.Asked {
		if s := d.statement(f.Asked[i].Text); s != nil && f.Asked[i].Plan != nil {
			s.Plan, s.Generic = f.Asked[i].Plan.Shape(), f.Asked[i].Generic
		}
	}
}

// analyzedFor is how long ANALYZE's count of rows is taken for theirs.
const analyzedFor = 7 * 24 * time.Hour

// rowsOf is how many rows a table has. The statistics' own count takes in what a session wrote once more when that session
// analysed the table before it told of its writes, as every load does that ends in ANALYZE; so it is asked only where ANALYZE was
// long ago.
func rowsOf(t evidence.Table, at time.Time) float64 {
	if t.Rows > 0 && at.Sub(t.Analyzed) < analyzedFor {
		return t.Rows
	}
	return max(t.Live, t.Rows)
}

// statement finds or makes the one with a text; nil for none.
func (d *surveyed) statement(text string) *Statement {
	shape, _ := evidence.Fingerprint(text)
	if shape == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(shape))
	key := hex.EncodeToString(sum[:8])
	s := d.statements[key]
	if s == nil {
		if len(d.statements) >= mostStatements {
			d.forget()
		}
		s = &Statement{Key: key, Text: cutText(shape, mostText)}
		d.statements[key] = s
	}
	return s
}

// forget makes room: the cheaper half goes.
func (d *surveyed) forget() {
	for _, s := range d.dearest()[mostStatements/2:] {
		delete(d.statements, s.Key)
	}
}

func (d *surveyed) dearest() []Statement {
	all := make([]Statement, 0, len(d.statements))
	for _, s := range d.statements {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Statement) int {
		return cmp.Or(cmp.Compare(b.TotalMS, a.TotalMS), cmp.Compare(a.Key, b.Key))
	})
	return all
}

func (y *survey) pool(service string, p evidence.PoolStats) {
	key := service + "\x00" + p.Name
	have := y.pools[key]
	if have == nil {
		if len(y.pools) >= mostPools {
			return
		}
		have = &Pool{Service: service, Name: p.Name}
		y.pools[key] = have
	}
	one := Pool{Max: p.Max, Used: p.Used, Windows: 1, WaitP99: p.WaitP99, Timeouts: p.Timeouts}
	if p.Exhausted() {
		one.Exhausted = 1
	}
	have.add(one)
}

func (p *Pool) add(o Pool) {
	p.Max, p.Used, p.WaitP99 = max(p.Max, o.Max), max(p.Used, o.Used), max(p.WaitP99, o.WaitP99)
	p.Windows, p.Exhausted, p.Timeouts = p.Windows+o.Windows, p.Exhausted+o.Exhausted, p.Timeouts+o.Timeouts
}

// Systems is what is known, in the order of names; statements the dearest first.
func (s *Survey) Systems() Systems {
	both := newPeriod()
	for _, y := range []*survey{&s.before, &s.now} {
		if both.since.IsZero() {
			both.since = y.since
		}
		for key, p := range y.pools {
			if both.pools[key] == nil {
				both.pools[key] = &Pool{Service: p.Service, Name: p.Name}
			}
			both.pools[key].add(*p)
		}
		for name, d := range y.databases {
			both.databases[name] = d.after(both.databases[name])
		}
	}
	out := Systems{Since: both.since}
	for _, name := range slices.Sorted(maps.Keys(both.databases)) {
		d := both.databases[name]
		d.Statements = d.dearest()
		d.Statements = d.Statements[:min(len(d.Statements), evidence.MaxStatements)]
		out.Databases = append(out.Databases, d.Database)
	}
	for _, key := range slices.Sorted(maps.Keys(both.pools)) {
		out.Pools = append(out.Pools, *both.pools[key])
	}
	return out
}

// after is a copy of d that goes on where earlier ended; nil = there is none.
func (d *surveyed) after(earlier *surveyed) *surveyed {
	out := &surveyed{Database: d.Database, statements: map[string]*Statement{}}
	for key, s := range d.statements {
		one := *s
		out.statements[key] = &one
	}
	if earlier == nil {
		return out
	}
	if out.Indexes == nil {
		out.Indexes = earlier.Indexes
	}
	if out.Tables == nil {
		out.Tables = earlier.Tables
	}
	for key, s := range earlier.statements {
		one := out.statements[key]
		if one == nil {
			one = &Statement{Key: s.Key, Text: s.Text}
			out.statements[key] = one
		}
		one.Calls, one.TotalMS = one.Calls+s.Calls, one.TotalMS+s.TotalMS
		if one.Plan == "" {
			one.Plan, one.Generic = s.Plan, s.Generic
		}
	}
	return out
}

// cutText is the beginning of a text.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
