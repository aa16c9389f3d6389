package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

// content is the page as the template sees it.
type content struct {
	Policy  string
	Style   template.CSS
	Script  template.JS
	Made    string
	Version string
	Input   []string
	Notes   []string
	Clocks  []diagnose.ClockModel

	Compared bool // with a baseline
	Culprits []diagnose.Culprit

	Rows     []summary
	RowsCut  int
	Routes   []route
	Facts    *facts // nil = none
	Paths    []paths
	Segments []trace.Segment
}

// summary is a route in the table of all.
type summary struct {
	advise.Route
	Anchor  string // "" = it is not shown one by one
	Finding string
}

// route is one that is shown by itself.
type route struct {
	advise.Route
	Anchor       string
	Number       int
	Drawn        bool
	Traces       []waterfall
	Findings     []finding
	FindingsCut  int
	SegmentsSeen []diagnose.Segment
	SegmentsCut  int
}

// paths is what the script draws of a route. The names are short because there are many.
type paths struct {
	Levels []float64  `json:"levels"`
	Nodes  []pathNode `json:"nodes"`
}

type pathNode struct {
	Parent int       `json:"p"`
	Class  string    `json:"c"` // of its segment
	Name   string    `json:"n"`
	MS     []float64 `json:"ms"`
}

// waterfall is one trace, with its bars in thousandths of its width.
type waterfall struct {
	Title, ID string
	MS        float64
	Cut       int
	Bars      []bar
}

type bar struct {
	diagnose.Bar
	Class       string
	Indent      int
	OwnMS       float64
	X, W        float64
	OnPath      [][2]float64 // x and width
	Name, Notes string
}

type finding struct {
	advise.Finding
	Actions []action
}

type action struct {
	advise.Action
	Bars   []change
	Change string // as a configuration, "" = none
}

// change is one quantile before and after.
type change struct {
	Name                 string
	Before, After        float64
	BeforeW, AfterW      float64 // thousandths
	Low, High, LowX, Len float64 // of the interval; High = 0: none
	Percent              string
}

func (p Page) content(d detail) content {
	c := content{
		Policy: policy(), Style: template.CSS(style), Script: template.JS(script), Version: p.Version,
		Input: InputLines(p.Report.Input), Notes: p.Report.Notes, Compared: p.Report.Culprits != nil, Culprits: p.Report.Culprits, Facts: factsOf(p.Facts),
		Segments: []trace.Segment{trace.SegClient, trace.SegGateway, trace.SegService, trace.SegDownstream, trace.SegCache, trace.SegDatabase, trace.SegQueue, trace.SegNetwork},
	}
	if !p.Made.IsZero() {
		c.Made = p.Made.UTC().Format("2 January 2006, 15:04 UTC")
	}
	const clocks = 10
	for _, k := range p.Report.Clocks {
		if k.Reference != "" && (k.Corrected || !k.Steady) && len(c.Clocks) < clocks {
			c.Clocks = append(c.Clocks, k)
		}
	}
	for i, r := range p.Report.Routes {
		if i == d.rows {
			c.RowsCut = len(p.Report.Routes) - i
			break
		}
		s := summary{Route: r}
		if len(r.Findings) > 0 {
			s.Finding = r.Findings[0].Class
		}
		if i < d.routes {
			s.Anchor = fmt.Sprintf("route-%d", i+1)
			one := routeOf(r, i, d)
			if i < len(p.Pictures) {
				one.draw(p.Pictures[i], d)
				c.Paths = append(c.Paths, pathsOf(p.Pictures[i]))
			} else {
				c.Paths = append(c.Paths, paths{})
			}
			c.Routes = append(c.Routes, one)
		}
		c.Rows = append(c.Rows, s)
	}
	return c
}

// InputLines says what was read, and what of it was fit for use, a few words each.
func InputLines(in diagnose.Input) []string {
	lines := []string{Counted(in.Traces, "trace"), Counted(in.Spans, "span")}
	for _, x := range []struct {
		n          int
		what, then string
	}{
		{in.Logs.Joined, "log record", ""},
		{in.Files, "file", ""},
		{in.IncompleteTraces, "incomplete trace", ""},
		{in.DuplicateSpans, "duplicate span", " dropped"},
		{in.InvalidSpans, "invalid span", " dropped"},
		{in.SkewCorrectedSpans, "span", " moved for clock skew"},
		{in.SyntheticRoots, "missing root", " made up"},
		{in.OrphanSpans, "span", " without parent"},
	} {
		if x.n > 0 {
			lines = append(lines, Counted(x.n, x.what)+x.then)
		}
	}
	if in.Represented > 0 {
		lines = append(lines, fmt.Sprintf("sampled: they stand for %.0f traces", in.Represented))
	}
	if in.Coverage < 1 {
		lines = append(lines, Percent(in.Coverage)+" of the spans hang on their trace's root, the others are in no figure")
	}
	return lines
}

func routeOf(r advise.Route, i int, d detail) route {
	out := route{Route: r, Anchor: fmt.Sprintf("route-%d", i+1), Number: i}
	const segments = 15
	out.SegmentsSeen = r.Segments[:min(len(r.Segments), segments)]
	out.SegmentsCut = len(r.Segments) - len(out.SegmentsSeen)
	shown := r.Findings[:min(len(r.Findings), d.findings)]
	out.FindingsCut = len(r.Findings) - len(shown)
	for _, f := range shown {
		one := finding{Finding: f}
		for _, a := range f.Actions {
			if !d.snippets {
				a.Snippets = nil
			}
			one.Actions = append(one.Actions, actionOf(a, r.Latency))
		}
		out.Findings = append(out.Findings, one)
	}
	return out
}

// actionOf puts an action's forecast beside what is measured.
func actionOf(a advise.Action, now diagnose.Latency) action {
	out := action{Action: a}
	if a.Change != nil {
		var parts struct {
			Change struct {
				Route string          `json:"route"`
				To    json.RawMessage `json:"to"`
			} `json:"change"`
		}
		if data, err := json.Marshal(a); err == nil && json.Unmarshal(data, &parts) == nil {
			if text, err := json.MarshalIndent(map[string]any{"route": parts.Change.Route, "policy": parts.Change.To}, "", "  "); err == nil {
				out.Change = string(text)
			}
		}
	}
	if a.Predicted == nil {
		return out
	}
	whole := max(now.P99, a.Predicted.P99)
	if a.Interval != nil {
		whole = max(whole, a.Interval.P99[1])
	}
	if whole <= 0 {
		return out
	}
	part := func(v float64) float64 { return math.Round(1000 * min(1, max(0, v/whole))) }
	for _, q := range []struct {
		name          string
		before, after float64
		interval      func(*advise.Interval) [2]float64
	}{
		{"p50", now.P50, a.Predicted.P50, func(i *advise.Interval) [2]float64 { return i.P50 }},
		{"p95", now.P95, a.Predicted.P95, func(i *advise.Interval) [2]float64 { return i.P95 }},
		{"p99", now.P99, a.Predicted.P99, func(i *advise.Interval) [2]float64 { return i.P99 }},
	} {
		c := change{Name: q.name, Before: q.before, After: q.after, BeforeW: part(q.before), AfterW: part(q.after)}
		if q.before > 0 {
			c.Percent = strings.Replace(fmt.Sprintf("%+.0f %%", 100*(q.after/q.before-1)), "-", "−", 1)
		}
		if a.Interval != nil {
			ends := q.interval(a.Interval)
			c.Low, c.High = ends[0], ends[1]
			c.LowX, c.Len = part(c.Low), max(2, part(c.High)-part(c.Low))
		}
		out.Bars = append(out.Bars, c)
	}
	return out
}

// class is the style of a segment.
func class(s trace.Segment) string { return "seg-" + cmp.Or(string(s), "other") }

// name is what a place is called in one line.
func name(service, operation string) string {
	return Cut(strings.TrimSpace(service+" "+operation), 120)
}

func pathsOf(p diagnose.Picture) paths {
	out := paths{Levels: p.Levels}
	for _, n := range p.Nodes {
		what := name(n.Service, n.Operation)
		if n.Segment == trace.SegNetwork {
			what = "way to " + what
		}
		out.Nodes = append(out.Nodes, pathNode{n.Parent, class(n.Segment), what, n.MS})
	}
	return out
}

func (r *route) draw(p diagnose.Picture, d detail) {
	r.Drawn = len(p.Nodes) > 0
	for _, t := range []struct {
		title string
		trace *diagnose.Waterfall
	}{{"A typical trace", p.Typical}, {"A slow trace", p.Slow}} {
		if t.trace != nil && t.trace.DurationMS > 0 {
			r.Traces = append(r.Traces, waterfallOf(t.title, t.trace, d.bars))
		}
	}
}

func waterfallOf(title string, t *diagnose.Waterfall, most int) waterfall {
	w := waterfall{Title: title, ID: t.TraceID, MS: t.DurationMS, Cut: t.Cut + max(0, len(t.Spans)-most)}
	place := func(from, to float64) (x, width float64) {
		x = min(1000, max(0, 1000*from/t.DurationMS))
		end := min(1000, max(0, 1000*to/t.DurationMS))
		return math.Round(x*10) / 10, math.Round(max(1.5, end-x)*10) / 10
	}
	for _, s := range t.Spans[:min(len(t.Spans), most)] {
		b := bar{Bar: s, Class: class(s.Segment), Indent: min(s.Depth, 12), Name: name(s.Service, s.Operation)}
		b.X, b.W = place(s.StartMS, s.EndMS)
		for _, c := range s.Critical {
			x, width := place(c[0], c[1])
			b.OnPath = append(b.OnPath, [2]float64{x, width})
			b.OwnMS += c[1] - c[0]
		}
		switch {
		case s.Failed:
			b.Notes = "failed"
		case s.Async:
			b.Notes = "not waited for"
		}
		w.Bars = append(w.Bars, b)
	}
	return w
}

// facts is what was read from the systems behind, as far as findings do not say it.
type facts struct {
	Window   string
	Postgres []evidence.PostgresFacts
	Services []service
	Redis    []evidence.RedisFacts
	Queues   []evidence.QueueStats
	Gaps     []evidence.Gap
}

type service struct {
	evidence.ServiceFacts
	Flames []flame
}

func factsOf(f evidence.Facts) *facts {
	if f.To.IsZero() {
		return nil
	}
	const most = 10
	out := &facts{Redis: f.Redis[:min(len(f.Redis), most)], Queues: f.Queues[:min(len(f.Queues), most)], Gaps: f.Gaps[:min(len(f.Gaps), 3*most)]}
	out.Window = fmt.Sprintf("%s, over %s", f.From.UTC().Format("2 January 2006, 15:04:05 UTC"), f.To.Sub(f.From).Round(time.Second))
	for _, p := range f.Postgres[:min(len(f.Postgres), most)] {
		p.Top = p.Top[:min(len(p.Top), most)]
		p.Asked = p.Asked[:min(len(p.Asked), most)]
		p.Chains = p.Chains[:min(len(p.Chains), most)]
		out.Postgres = append(out.Postgres, p)
	}
	for _, s := range f.Services[:min(len(f.Services), most)] {
		one := service{ServiceFacts: s}
		for _, p := range s.Profiles {
			if g := flameOf(p); g != nil {
				one.Flames = append(one.Flames, *g)
			}
		}
		out.Services = append(out.Services, one)
	}
	return out
}

// flame is a flame graph, upside down: callers above.
type flame struct {
	Kind    string
	Samples float64
	Height  int
	Boxes   []box
	Top     []evidence.Function
}

type box struct {
	X, W  float64 // thousandths
	Y     int
	Hue   int
	Name  string
	Share float64
	Label string // "" = too narrow
}

// TextX and TextY are where the label stands.
func (b box) TextX() float64 { return b.X + 2 }

// TextY is the label's base line.
func (b box) TextY() int { return b.Y + 12 }

const (
	flameRow   = 17
	flameBoxes = 500
	flameDepth = 48
)

func flameOf(p evidence.ProfileFacts) *flame {
	const functions = 8
	out := &flame{Kind: p.Kind, Samples: p.Samples, Top: p.Top[:min(len(p.Top), functions)]}
	if p.Flame == nil || p.Flame.Value <= 0 {
		if len(out.Top) == 0 {
			return nil
		}
		return out
	}
	type step struct {
		f     *evidence.Frame
		from  float64
		depth int
	}
	whole := p.Flame.Value
	for todo := []step{{p.Flame, 0, -1}}; len(todo) > 0 && len(out.Boxes) < flameBoxes; {
		s := todo[0]
		todo = todo[1:]
		if s.depth >= 0 {
			b := box{X: math.Round(10000*s.from/whole) / 10, W: math.Round(10000*s.f.Value/whole) / 10, Y: s.depth * flameRow, Hue: hue(s.f.Name), Name: s.f.Name, Share: s.f.Value / whole}
			if room := int(b.W * 0.15); room >= 4 {
				b.Label = Cut(short(s.f.Name), room)
			}
			out.Boxes = append(out.Boxes, b)
			out.Height = max(out.Height, b.Y+flameRow)
		}
		if s.depth+1 >= flameDepth {
			continue
		}
		from := s.from
		for _, c := range s.f.Children {
			todo = append(todo, step{c, from, s.depth + 1})
			from += c.Value
		}
	}
	return out
}

// hue is one of eight colours, the same for all functions of a package.
func hue(function string) int {
	last := short(function)
	pkg, _, _ := strings.Cut(last, ".")
	sum := 0
	for _, b := range []byte(function[:len(function)-len(last)] + pkg) {
		sum = (sum*31 + int(b)) % 1009
	}
	return sum % 8
}

// short is a function without the path of its package.
func short(function string) string { return function[strings.LastIndexByte(function, '/')+1:] }
