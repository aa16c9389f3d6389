package advise

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// What a what-if may refuse.
var (
	ErrExpression = errors.New("advise: not a change") // the text cannot be read
	ErrNoForecast = errors.New("advise: no forecast")  // the traces do not hold what it needs
)

// Bounds of a text of changes.
const (
	maxExpression = 4096 // bytes
	maxChanges    = 8
)

// Forecast is what a change would do.
type Forecast struct {
	Changes []string `json:"changes"`         // as they were understood, one each
	Effects []Effect `json:"effects"`         // on every route that the changes reach, innermost first; never nil
	Notes   []string `json:"notes,omitempty"` // what the forecast rests on
	// ExtraLoad is the calls added per call of the targets, all changes together; negative = saved; 0 also when unknown.
	ExtraLoad float64 `json:"extra_load"`
}

// change is one expression, parsed.
type change struct {
	verb     string
	target   target
	factor   float64       // speedup, index: how many times as fast; batch: none
	removed  time.Duration // speedup
	ttl      time.Duration // cache; also the hedge's delay and the limit of an attempt
	stale    time.Duration // cache
	hit      float64       // cache: share of hits, 0 = by replay of the keys
	tries    int           // timeout, retries
	from, to int           // replicas
	share    float64       // payload: less; shed: refused
	endpoint string        // drain
}

// verb is one kind of change: how its arguments are read, and an example.
type verb struct {
	parse   func(c *change, args []string) error
	example string
}

// verbs by name.
func verbs() map[string]verb {
	return map[string]verb{
		"speedup":  {parseSpeedup, "speedup orders/GET 2x  or  speedup orders/GET -20ms"},
		"remove":   {parseNothing, "remove orders/audit"},
		"async":    {parseAsync, "async notify  or  async notify enqueue=2ms"},
		"parallel": {parseNothing, "parallel checkout"},
		"batch":    {parseNothing, "batch orders/SELECT"},
		"reuse":    {parseNothing, "reuse catalogue/list"},
		"cache":    {parseCache, "cache catalogue/list ttl=60s  or  cache catalogue/list hit=80%"},
		"hedge":    {parseHedge, "hedge orders after=50ms"},
		"timeout":  {parseTimeout, "timeout orders 200ms tries=2"},
		"drain":    {parseDrain, "drain orders endpoint=10.0.0.3:9001"},
		"retries":  {parseRetries, "retries orders 2"},
		"index":    {parseIndex, "index orders/SELECT 20x"},
		"replicas": {parseReplicas, "replicas orders 3->5"},
		"payload":  {parseShare, "payload catalogue -50%"},
		"shed":     {parseShare, "shed orders 20%"},
	}
}

// Verbs is the kinds of change that [WhatIf] knows, each with an example, in alphabetical order.
func Verbs() []string {
	var list []string
	for _, v := range verbs() {
		list = append(list, v.example)
	}
	slices.Sort(list)
	return list
}

// WhatIf forecasts what changes would do to the routes of traces. text holds one change or several, separated by
// semicolons or line ends, that are made together; see [Verbs]. A target is a service or service/operation, in quotes
// where it holds spaces; an operation may be cut short at a word: GET stands for all that begin so.
//
// The error is [ErrExpression] with what was expected, or [ErrNoForecast] with what the traces lack.
func WhatIf(traces []trace.Trace, text string) (Forecast, error) {
	changes, err := parseChanges(text)
	if err != nil {
		return Forecast{}, err
	}
	c := load(traces, diagnose.ClockOptions{})
	f := Forecast{Effects: []Effect{}}
	var plans []plan
	for _, ch := range changes {
		p, err := c.plan(ch)
		if err != nil {
			return Forecast{}, err
		}
		f.Changes = append(f.Changes, ch.String())
		plans = append(plans, p)
	}
	all := c.together(plans)
	f.Notes, f.ExtraLoad = all.notes, all.extra
	f.Effects = c.replay(c.above(all.spans), all)
	return f, nil
}

// plan makes a plan of a change.
func (c *corpus) plan(ch change) (p plan, err error) {
	if len(c.find(ch.target)) == 0 {
		return plan{}, fmt.Errorf("%w: no span of %s; there are %s", ErrNoForecast, ch.target, c.known(ch.target.service))
	}
	reason := ""
	visit := func(f func(n int, t *timeline, i int)) {
		for _, r := range c.find(ch.target) {
			f(r.trace, c.traces[r.trace], r.span)
		}
	}
	switch ch.verb {
	case "speedup":
		p = c.faster(ch.target, ch.factor, ch.removed)
	case "remove":
		p = c.gone(c.callsTo(ch.target), 0)
	case "async":
		p = c.gone(c.callsTo(ch.target), cmp.Or(ch.ttl, c.publishing()))
	case "parallel":
		callers, groups := c.links(visit)
		p, reason = c.atOnce(callers, groups), none(len(callers), "calls in a row")
	case "batch":
		l := c.loops(visit)
		p, reason = c.joined(l), none(len(l.callers), "loops of calls")
	case "reuse":
		p, _, _ = c.repeats(ch.target)
		reason = none(len(p.spans), "reads that come twice in one trace")
	case "cache":
		p, reason = c.keeping(ch)
	case "hedge":
		p, reason = c.hedging(ch)
	case "drain":
		p, reason = c.draining(ch)
	case "timeout":
		p, _ = c.bounded(c.callsTo(ch.target), ch.ttl, ch.tries)
	case "retries":
		p, _ = c.attempted(c.callsTo(ch.target), ch.tries)
	case "index":
		p = c.indexed(c.callsTo(ch.target), ch.factor)
	case "replicas":
		p, reason = c.scaled(ch.target, ch.from, ch.to)
	case "payload":
		p, reason = c.lighter(ch.target, c.callsTo(ch.target), ch.share)
	case "shed":
		p, reason = c.relieved(ch.target, ch.share)
	}
	if reason != "" {
		return plan{}, fmt.Errorf("%w of %q: %s", ErrNoForecast, ch, reason)
	}
	return p, nil
}

func none(n int, what string) string {
	if n > 0 {
		return ""
	}
	return "the traces show no " + what + " there"
}

// known names what could have been meant.
func (c *corpus) known(service string) string {
	names := make(map[string]bool)
	for _, t := range c.traces {
		for i := range t.spans {
			if s := &t.spans[i]; s.Service == service {
				names[s.Service+"/"+s.Name] = true
			} else if !names[s.Service] {
				names[s.Service] = true
			}
		}
	}
	var list []string
	for name := range names {
		if own := strings.HasPrefix(name, service+"/"); own || !c.has(service) {
			list = append(list, strconv.Quote(name))
		}
	}
	slices.Sort(list)
	const shown = 10
	if more := len(list) - shown; more > 0 {
		return strings.Join(list[:shown], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(list, ", ")
}

// has reports whether any span is of a service.
func (c *corpus) has(service string) bool {
	return slices.ContainsFunc(c.traces, func(t *timeline) bool {
		return slices.ContainsFunc(t.spans, func(s trace.Span) bool { return s.Service == service })
	})
}

// keeping is the plan of a cache: by replay of the keys, or with a share of hits that somebody knows.
func (c *corpus) keeping(ch change) (plan, string) {
	r := &reads{}
	for _, at := range c.callsTo(ch.target) {
		t := c.traces[at.trace]
		x := r.add(t, at, at.span)
		if served := t.servedBy(at.span); x.key == "" && served != at.span {
			*r = reads{list: r.list[:len(r.list)-1], personal: r.personal, foreign: r.foreign, opaque: r.opaque, cached: r.cached}
			r.add(t, at, served)
		}
	}
	r.sort()
	if ch.hit > 0 {
		p := each(c.callsTo(ch.target), func(n, i int, e *edit) {
			if random(&c.traces[n].spans[i], 0).Float64() < ch.hit {
				e.set(i, int64(serveHit))
			}
		})
		p.doubt, p.extra = drawDoubt, -ch.hit
		p.notes = []string{fmt.Sprintf("%.0f%% of the calls are taken to be hits, drawn at random", 100*ch.hit)}
		return p, ""
	}
	if r.keys == 0 {
		return plan{}, "the spans do not tell what was asked for (no URL, no statement with its parameters); give the share of hits: hit=80%"
	}
	config := cache.Config{TTL: ch.ttl, StaleWhileRevalidate: ch.stale}
	p := c.kept(r, config)
	out := r.simulate(config)
	p.notes = []string{fmt.Sprintf("%d reads of %d keys in %s; %.1f%% wait for a fetch with a warm cache", len(r.list), r.keys, short(r.period), 100*r.waits(out))}
	if r.sampled() {
		p.notes = append(p.notes, "the traces are a sample: keys that show twice are taken to be asked for as often as their traces stand for, others once")
	}
	if ch.ttl+ch.stale > r.window()/2 {
		p.notes = append(p.notes, "the lifetime is longer than half of what was watched: the share of hits is too good")
	}
	return p, ""
}

// endpoints gathers the calls of a target by the endpoint that answered.
func (c *corpus) endpoints(t target) *pool {
	p := &pool{took: make(map[string]*dist)}
	for _, at := range c.callsTo(t) {
		line := c.traces[at.trace]
		p.add(c, at, cmp.Or(hostOf(line, line.servedBy(at.span)), address(&line.spans[at.span])))
	}
	p.sort(c)
	return p
}

// draining is the plan of an endpoint that gets no calls.
func (c *corpus) draining(ch change) (plan, string) {
	p := c.endpoints(ch.target)
	if p.took[ch.endpoint] == nil || p.others(ch.endpoint) == 0 {
		return plan{}, fmt.Sprintf("no such endpoint beside others; there are %s", strings.Join(p.names[:min(len(p.names), 10)], ", "))
	}
	return c.drained(p, ch.endpoint), ""
}

// hedging is the plan of a second copy after a delay that is given, or the best within a tenth more load.
func (c *corpus) hedging(ch change) (plan, string) {
	p := c.endpoints(ch.target)
	if len(p.names) < 2 {
		return plan{}, "the spans show one endpoint only, and the copy needs another"
	}
	h := hedgePlan{after: ch.ttl}
	if h.after == 0 {
		var ok bool
		if h, ok = p.planHedge(maxExtraLoad); !ok {
			return plan{}, "no delay within 10% more load makes the p99 better"
		}
	}
	h.extra = share(p.aboveAll(int64(h.after)), p.total)
	what := c.hedged(p, h)
	what.notes = []string{fmt.Sprintf("a copy after %s, for %.1f%% of the calls; %d endpoints", h.after, 100*h.extra, len(p.names))}
	return what, ""
}

// parseChanges reads all changes of a text.
func parseChanges(text string) ([]change, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrExpression, len(text), maxExpression)
	}
	parts, err := words(text)
	if err != nil {
		return nil, err
	}
	var list []change
	for _, part := range parts {
		ch, err := parseChange(part)
		if err != nil {
			return nil, err
		}
		if list = append(list, ch); len(list) > maxChanges {
			return nil, fmt.Errorf("%w: more than %d changes at once", ErrExpression, maxChanges)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: it is empty, want for example: speedup orders/GET 2x", ErrExpression)
	}
	return list, nil
}

// words splits a text into changes and these into words; quotes keep spaces and separators.
func words(text string) ([][]string, error) {
	var all [][]string
	var line []string
	var word strings.Builder
	open, some := false, false
	end := func() {
		if some {
			line = append(line, word.String())
		}
		word.Reset()
		some = false
	}
	for _, r := range text {
		switch {
		case r == '"':
			open, some = !open, true
		case open:
			word.WriteRune(r)
		case r == ';' || r == '\n':
			end()
			if len(line) > 0 {
				all = append(all, line)
			}
			line = nil
		case r == ' ' || r == '\t' || r == '\r':
			end()
		default:
			word.WriteRune(r)
			some = true
		}
	}
	if open {
		return nil, fmt.Errorf("%w: a quotation mark that is not closed in %q", ErrExpression, text)
	}
	end()
	if len(line) > 0 {
		all = append(all, line)
	}
	return all, nil
}

func parseChange(part []string) (change, error) {
	all := verbs()
	v, ok := all[strings.ToLower(part[0])]
	if !ok {
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		return change{}, fmt.Errorf("%w: %q, want one of %s", ErrExpression, part[0], strings.Join(names, ", "))
	}
	ch := change{verb: strings.ToLower(part[0]), factor: 1}
	wrong := func(why string) (change, error) {
		return change{}, fmt.Errorf("%w: %q: %s, want for example: %s", ErrExpression, strings.Join(part, " "), why, v.example)
	}
	if len(part) < 2 || strings.Trim(part[1], "/") == "" {
		return wrong("no target")
	}
	ch.target.service, ch.target.operation, _ = strings.Cut(part[1], "/")
	if ch.target.service == "" {
		return wrong("no service before the /")
	}
	if err := v.parse(&ch, part[2:]); err != nil {
		return wrong(err.Error())
	}
	return ch, nil
}

// option is the value of name=value among args; what is left is the other args.
func option(args []string, name string) (value string, rest []string) {
	for _, a := range args {
		if key, v, ok := strings.Cut(a, "="); ok && strings.EqualFold(key, name) {
			value = v
			continue
		}
		rest = append(rest, a)
	}
	return value, rest
}

func parseNothing(_ *change, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is too much", args[0])
	}
	return nil
}

// parseTimes reads "2x".
func parseTimes(text string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSuffix(strings.ToLower(text), "x"), 64)
	if err != nil || !(v >= 1 && v <= 1e6) {
		return 0, fmt.Errorf("%q is no factor of 1x to 1000000x", text)
	}
	return v, nil
}

// parsePart reads "20%" or "0.2", with a sign or without; the sign means nothing.
func parsePart(text string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimLeft(text, "+-"), "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v < 1) {
		return 0, fmt.Errorf("%q is no share above 0%% and below 100%%", text)
	}
	return v, nil
}

func parseSpan(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > 24*time.Hour {
		return 0, fmt.Errorf("%q is no duration such as 50ms", text)
	}
	return d, nil
}

func parseSpeedup(c *change, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("one factor or one duration is needed")
	}
	if cut, ok := strings.CutPrefix(args[0], "-"); ok {
		c.removed, err = parseSpan(cut)
		return err
	}
	c.factor, err = parseTimes(args[0])
	return err
}

func parseIndex(c *change, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("the planner's gain is needed")
	}
	c.factor, err = parseTimes(args[0])
	return err
}

func parseAsync(c *change, args []string) (err error) {
	value, rest := option(args, "enqueue")
	if value != "" {
		if c.ttl, err = parseSpan(value); err != nil {
			return err
		}
	}
	return parseNothing(c, rest)
}

func parseCache(c *change, args []string) (err error) {
	ttl, rest := option(args, "ttl")
	stale, rest := option(rest, "stale")
	hit, rest := option(rest, "hit")
	if ttl == "" && hit == "" {
		return errors.New("ttl= or hit= is needed")
	}
	if ttl != "" {
		if c.ttl, err = parseSpan(ttl); err != nil {
			return err
		}
	}
	if stale != "" {
		if c.stale, err = parseSpan(stale); err != nil {
			return err
		}
	}
	if hit != "" {
		if c.hit, err = parsePart(hit); err != nil {
			return err
		}
	}
	return parseNothing(c, rest)
}

func parseHedge(c *change, args []string) (err error) {
	after, rest := option(args, "after")
	if after != "" {
		if c.ttl, err = parseSpan(after); err != nil {
			return err
		}
	}
	return parseNothing(c, rest)
}

func parseDrain(c *change, args []string) error {
	var rest []string
	if c.endpoint, rest = option(args, "endpoint"); c.endpoint == "" {
		return errors.New("endpoint= is needed")
	}
	return parseNothing(c, rest)
}

// most attempts that a forecast tries.
const mostTries = 10

func parseTries(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostTries {
		return 0, fmt.Errorf("%q is no number of attempts from 1 to %d", text, mostTries)
	}
	return n, nil
}

func parseTimeout(c *change, args []string) (err error) {
	tries, rest := option(args, "tries")
	c.tries = 1
	if tries != "" {
		if c.tries, err = parseTries(tries); err != nil {
			return err
		}
	}
	if len(rest) != 1 {
		return errors.New("one duration is needed")
	}
	c.ttl, err = parseSpan(rest[0])
	return err
}

func parseRetries(c *change, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("the number of attempts is needed")
	}
	c.tries, err = parseTries(args[0])
	return err
}

func parseReplicas(c *change, args []string) (err error) {
	const most = 100_000
	from, to, ok := strings.Cut(strings.Join(args, ""), "->")
	if !ok {
		return errors.New("no ->")
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil || a < 1 || b < 1 || a > most || b > most {
		return fmt.Errorf("%q is no pair of numbers from 1 to %d", strings.Join(args, " "), most)
	}
	c.from, c.to = a, b
	return nil
}

func parseShare(c *change, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("one share is needed")
	}
	c.share, err = parsePart(args[0])
	return err
}

// quoted is a word that [words] reads as one.
func quoted(word string) string {
	if strings.ContainsAny(word, " \t\r\n;") {
		return `"` + word + `"`
	}
	return word
}

// String is the change in words that [WhatIf] reads.
func (c change) String() string {
	name := c.target.service
	if c.target.operation != "" {
		name += "/" + c.target.operation
	}
	text := c.verb + " " + quoted(name)
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	percent := func(v float64) string { return number(math.Round(v*1e8)/1e6) + "%" }
	switch c.verb {
	case "speedup":
		if c.removed > 0 {
			return text + " -" + c.removed.String()
		}
		return text + " " + number(c.factor) + "x"
	case "index":
		return text + " " + number(c.factor) + "x"
	case "async":
		if c.ttl > 0 {
			text += " enqueue=" + c.ttl.String()
		}
	case "cache":
		if c.ttl > 0 {
			text += " ttl=" + c.ttl.String()
		}
		if c.stale > 0 {
			text += " stale=" + c.stale.String()
		}
		if c.hit > 0 {
			text += " hit=" + percent(c.hit)
		}
	case "hedge":
		if c.ttl > 0 {
			text += " after=" + c.ttl.String()
		}
	case "drain":
		return text + " " + quoted("endpoint="+c.endpoint)
	case "timeout":
		return text + fmt.Sprintf(" %s tries=%d", c.ttl, c.tries)
	case "retries":
		return text + fmt.Sprintf(" %d", c.tries)
	case "replicas":
		return text + fmt.Sprintf(" %d->%d", c.from, c.to)
	case "payload":
		return text + " -" + percent(c.share)
	case "shed":
		return text + " " + percent(c.share)
	}
	return text
}
