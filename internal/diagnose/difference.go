package diagnose

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// Difference is something that slow traces have more often than the others: a value of an attribute, an operation, a
// size. It goes with slowness; whether it is the cause it does not say.
type Difference struct {
	Service      string   `json:"service"`        // whose spans have it; "" = it is about the trace as a whole
	Key          string   `json:"key"`            // the attribute; "operation" and "spans" are about the trace as a whole, "failed" about a service
	Value        string   `json:"value"`          // of numbers with many values: ">= 4096", a power of two
	SlowShare    float64  `json:"slow_share"`     // of the slow traces that have it, 0..1
	HealthyShare float64  `json:"healthy_share"`  // of the others, 0..1
	ExcessMS     float64  `json:"excess_ms"`      // mean duration of the traces that have it, less that of those that do not, milliseconds
	P            float64  `json:"p"`              // how likely chance alone would do this, once, not yet corrected for the number of comparisons
	Also         []string `json:"also,omitempty"` // what the very same traces have too, "service key=value", at most ten
}

// The rules and bounds of the search.
const (
	differRate    = 0.001 // routes without any difference that are said to have one, at most
	differTwice   = 1.5   // times as frequent among the slow ones
	differMore    = 0.1   // and so much more, as a share of the traces
	differExcess  = 0.05  // of the typical duration, that traces which have it take longer
	differSlow    = 20    // traces; where the slow band has fewer, the slowest twentieth stands for it, up to so many
	maxSlowSeen   = 200   // slow traces looked at
	maxOthersSeen = 400   // other traces looked at, evenly by duration
	maxSpansSeen  = 64    // spans of one trace, the first on its path
	maxColumns    = 1000  // attributes, by service
	maxValues     = 64    // of one attribute; of more only numbers are compared
	fewNumbers    = 8     // values; numbers that have no more are compared one by one
	maxValueBytes = 200   // longer values are not compared
	maxDiffers    = 10    // differences in a report
	maxAlso       = 10
)

// differences finds what the slow traces of a route have that the others have not. cut is how many values were not
// compared because of the bounds.
//
// Each value is tested by Fisher's exact test, one-sided, on the counts of traces; the tests of a route are corrected
// together by Benjamini and Hochberg's rule. What is left must be clear in size, too.
//
// Source: the idea is Honeycomb's BubbleUp. R. A. Fisher, Statistical Methods for Research Workers, 1934, section 21.02;
// Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, 1995.
func (v *view) differences() (list []Difference, cut int) {
	if v.answered != nil {
		v = v.answered
	}
	s := newSurvey(v)
	if s.slow == 0 || s.slow == len(s.traces) {
		return nil, 0
	}
	return s.conclude(float64(quantileOf(v.typical)), v.rest)
}

// differencesBetween finds what the traces of one set have and those of an earlier one have not, by the same rules.
func differencesBetween(before, now []sample, rest func()) []Difference {
	s := emptySurvey()
	s.take(before, maxOthersSeen)
	s.later = len(s.traces)
	s.take(now, maxSlowSeen)
	s.slow = len(s.traces) - s.later
	list, _ := s.conclude(float64(quantileOf(before)), rest)
	return list
}

// conclude reads the traces and tests what they have; typical is the duration that an excess is measured by, ns.
func (s *survey) conclude(typical float64, rest func()) (list []Difference, cut int) {
	for i := range s.traces {
		rest()
		s.read(i)
	}
	candidates := s.candidates()
	slices.SortFunc(candidates, compareCandidates)
	passed := 0
	for i, c := range candidates {
		if c.p <= differRate*float64(i+1)/float64(s.tests) {
			passed = i + 1
		}
	}
	for _, c := range candidates[:passed] {
		d := c.Difference
		if d.SlowShare < differTwice*d.HealthyShare || d.SlowShare-d.HealthyShare < differMore || d.ExcessMS < differExcess*typical/1e6 {
			continue
		}
		list = s.merge(list, c)
	}
	return list, s.cut + max(len(list)-maxDiffers, 0)
}

func quantileOf(samples []sample) int64 {
	if len(samples) == 0 {
		return 0
	}
	return samples[len(samples)/2].duration
}

// survey is the traces that are compared and what they have.
type survey struct {
	traces     []surveyed
	slow       int    // of traces, the last ones
	numbers    *spots // of columns: service and key
	columns    []*column
	operations map[operationKey]*value
	named      []*value // the values of operations, each once
	later      int      // the first trace of a set of its own, whose operations have other numbers; 0 = all are of one set
	tests      int
	cut        int
	known      map[columnsKey][]*column
	met        []bool         // the spans of a trace that were looked at
	same       map[uint64]int // place in the list of differences of what a set of traces has
}

// operationKey is the spots number of an operation in one of two sets.
type operationKey struct {
	later  bool
	number int32
}

// columnsKey is what has the same columns: spans of a service with the same attributes.
type columnsKey struct {
	layout  *layout
	service string
}

type surveyed struct {
	*sample
	weight float64 // traces it stands for, those that were passed over included
}

// column is the values of one attribute of one service.
type column struct {
	at     spot
	index  map[string]int32
	values []value
	last   int32     // the value that was seen last
	wide   bool      // there are more than maxValues
	number bool      // all values are numbers
	max    []float64 // by trace: the largest number; NaN = none
}

type value struct {
	text   string
	traces []int32 // that have it, in order
}

// add notes that trace has it, and reports whether that is new.
func (v *value) add(trace int) bool {
	if n := len(v.traces); n > 0 && v.traces[n-1] == int32(trace) {
		return false
	}
	v.traces = append(v.traces, int32(trace))
	return true
}

// newSurvey chooses the traces: all slow ones, as far as they are not too many, and others evenly by their duration.
func newSurvey(v *view) *survey {
	s := emptySurvey()
	n := len(v.samples)
	slow := max(len(v.slow), min(differSlow, n/20))
	s.take(v.samples[:n-slow], maxOthersSeen)
	before := len(s.traces)
	s.take(v.samples[n-slow:], maxSlowSeen)
	s.slow = len(s.traces) - before
	return s
}

func emptySurvey() *survey {
	return &survey{numbers: newSpots(), operations: make(map[operationKey]*value), known: make(map[columnsKey][]*column), same: make(map[uint64]int)}
}

func (s *survey) take(samples []sample, most int) {
	n := len(samples)
	for i := range min(n, most) {
		from, to := i*n/min(n, most), (i+1)*n/min(n, most)
		s.traces = append(s.traces, surveyed{&samples[(from+to)/2], weigh(samples[from:to])})
	}
}

// read takes in what trace i has.
func (s *survey) read(i int) {
	x := s.traces[i]
	t := x.tree
	s.see(i, "", "spans", strconv.Itoa(len(t.Spans)))
	for at, n := range t.spots {
		s.operation(i, n, &t.Spans[at])
	}
	s.met = again(s.met, len(t.Spans))
	seen := 0
	for _, section := range x.sections {
		if s.met[section.Span] {
			continue
		}
		s.met[section.Span] = true
		if seen++; seen > maxSpansSeen {
			break
		}
		span := &t.Spans[section.Span]
		if span.Failed {
			s.see(i, span.Service, "failed", "true")
		}
		columns := s.columnsOf(t, section.Span)
		for k, c := range columns {
			s.note(i, c, span.At(k).Value)
		}
	}
}

// operation notes that trace i has a span of the operation of that number.
func (s *survey) operation(i int, number int32, span *trace.Span) {
	key := operationKey{s.later > 0 && i >= s.later, number}
	v := s.operations[key]
	if v == nil {
		if v = s.operationNamed(key.later, span.Service+" "+span.Name); v == nil {
			s.cut++
			return
		}
		s.operations[key] = v
	}
	v.add(i)
}

// operationNamed is the value of an operation that has no number yet; nil = there is no room for it.
func (s *survey) operationNamed(later bool, text string) *value {
	if later {
		if at := slices.IndexFunc(s.named, func(v *value) bool { return v.text == text }); at >= 0 {
			return s.named[at]
		}
	}
	if len(s.named) == maxOperations {
		return nil
	}
	s.named = append(s.named, &value{text: text})
	return s.named[len(s.named)-1]
}

// columnsOf is the columns of the attributes of span i, in their order.
func (s *survey) columnsOf(t *Tree, i int) []*column {
	span := &t.Spans[i]
	key := columnsKey{service: span.Service}
	if t.layouts != nil {
		key.layout = t.layouts[i]
	}
	if list, known := s.known[key]; known && key.layout != nil {
		return list
	}
	list := make([]*column, span.Len())
	for k := range list {
		list[k] = s.column(span.Service, span.At(k).Key)
	}
	s.known[key] = list
	return list
}

// column is that of an attribute; nil = there is no room for it.
func (s *survey) column(service, key string) *column {
	n := s.numbers.numberUpTo(maxColumns, service, key)
	if n < 0 {
		return nil
	}
	if int(n) == len(s.columns) {
		s.columns = append(s.columns, &column{at: spot{service, key}, index: make(map[string]int32), number: true})
	}
	return s.columns[n]
}

// see notes that trace i has a value.
func (s *survey) see(i int, service, key, text string) { s.note(i, s.column(service, key), text) }

// note notes that trace i has a value of column c.
func (s *survey) note(i int, c *column, text string) {
	if c == nil || len(text) > maxValueBytes || text == "" {
		s.cut++
		return
	}
	if c.wide && c.number { // only the largest number counts
		c.measure(i, text)
		return
	}
	if len(c.values) == 0 || c.values[c.last].text != text {
		at, known := c.index[text]
		if !known {
			at = c.add(text)
		}
		if at < 0 {
			if !c.number {
				s.cut++
			}
			c.measure(i, text)
			return
		}
		c.last = at
	}
	if c.values[c.last].add(i) && c.number {
		c.measure(i, text)
	}
}

// add makes room for a value; -1 = there is none.
func (c *column) add(text string) int32 {
	if c.wide {
		return -1
	}
	if len(c.values) == maxValues {
		c.wide = true
		return -1
	}
	c.index[text] = int32(len(c.values))
	c.values = append(c.values, value{text: text})
	return int32(len(c.values) - 1)
}

// measure keeps the largest number that trace i has, as long as all values are numbers.
func (c *column) measure(i int, text string) {
	if !c.number {
		return
	}
	number, err := number(text)
	if err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
		c.number = false
		return
	}
	for len(c.max) <= i {
		c.max = append(c.max, math.NaN())
	}
	if !(number <= c.max[i]) {
		c.max[i] = number
	}
}

// number reads one, most quickly a short whole one.
func number(text string) (float64, error) {
	if len(text) > 15 { // of more digits a float64 may not hold all
		return strconv.ParseFloat(text, 64)
	}
	n := int64(0)
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return strconv.ParseFloat(text, 64)
		}
		n = 10*n + int64(text[i]-'0')
	}
	if text == "" {
		return strconv.ParseFloat(text, 64)
	}
	return float64(n), nil
}

// candidate is something that may be a difference.
type candidate struct {
	Difference
	p   float64
	set uint64 // tells which traces have it
}

func compareCandidates(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.p, b.p), cmp.Compare(b.ExcessMS, a.ExcessMS), cmp.Compare(a.Service, b.Service),
		cmp.Compare(a.Key, b.Key), cmp.Compare(len(a.Value), len(b.Value)), cmp.Compare(a.Value, b.Value))
}

// candidates tests every value of every column.
func (s *survey) candidates() (list []candidate) {
	for _, v := range s.named {
		list = s.test(list, spot{"", "operation"}, v.text, v.traces)
	}
	for _, c := range s.columns {
		switch {
		case c.number && len(c.values) > fewNumbers:
			list = s.testNumbers(list, c)
		case c.wide:
			s.cut += len(c.values)
		default:
			for _, v := range c.values {
				list = s.test(list, c.at, v.text, v.traces)
			}
		}
	}
	return list
}

// testNumbers tests for every power of two whether the traces that reach it are slow, and keeps the one that tells most.
func (s *survey) testNumbers(list []candidate, c *column) []candidate {
	var best []candidate
	var traces []int32
	before := -1
	for power := range 60 {
		limit := float64(int64(1) << power)
		traces = traces[:0]
		for i := range s.traces {
			if i < len(c.max) && c.max[i] >= limit {
				traces = append(traces, int32(i))
			}
		}
		if len(traces) == 0 {
			break
		}
		if len(traces) == before {
			continue
		}
		before = len(traces)
		found := s.test(nil, c.at, ">= "+strconv.FormatInt(int64(1)<<power, 10), traces)
		if len(best) == 0 || len(found) > 0 && found[0].p < best[0].p {
			best = found
		}
	}
	return append(list, best...)
}

// test adds a candidate to list, if the slow traces among those given are more than their share.
func (s *survey) test(list []candidate, at spot, text string, traces []int32) []candidate {
	all, first := len(s.traces), len(s.traces)-s.slow
	if len(traces) == all {
		return list
	}
	s.tests++
	slow := 0
	c := candidate{Difference: Difference{Service: at.service, Key: at.operation, Value: text}}
	var have, lack, haveTime, lackTime [2]float64 // of the others, of the slow ones
	next := 0
	for i := range s.traces {
		x, band := &s.traces[i], 0
		if i >= first {
			band = 1
		}
		if next < len(traces) && int(traces[next]) == i {
			next++
			slow += band
			have[band] += x.weight
			haveTime[band] += x.weight * float64(x.duration)
			c.set ^= scatter(uint64(i))
			continue
		}
		lack[band] += x.weight
		lackTime[band] += x.weight * float64(x.duration)
	}
	c.SlowShare, c.HealthyShare = ratio(have[1], have[1]+lack[1]), ratio(have[0], have[0]+lack[0])
	if c.SlowShare <= c.HealthyShare {
		return list
	}
	c.ExcessMS = (ratio(haveTime[0]+haveTime[1], have[0]+have[1]) - ratio(lackTime[0]+lackTime[1], lack[0]+lack[1])) / 1e6
	c.p = fisher(slow, s.slow, len(traces), all)
	c.P = c.p
	return append(list, c)
}

// scatter is a number that looks like chance, from Steele, Lea and Flood's SplitMix.
func scatter(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// merge adds a candidate to the differences, or to the one that the same traces have.
func (s *survey) merge(list []Difference, c candidate) []Difference {
	at, known := s.same[c.set]
	if !known {
		if len(list) < maxDiffers {
			s.same[c.set] = len(list)
			return append(list, c.Difference)
		}
		s.cut++
		return list
	}
	if d := &list[at]; len(d.Also) < maxAlso {
		also := c.Key + "=" + c.Value
		if c.Service != "" {
			also = c.Service + " " + also
		}
		d.Also = append(d.Also, also)
	}
	return list
}

// fisher is the probability that of drawn ones among all, hits or more are among the marked ones, if they are drawn
// without looking.
func fisher(hits, marked, drawn, all int) float64 {
	choose := func(n, k int) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return a - b - c
	}
	term := math.Exp(choose(marked, hits) + choose(all-marked, drawn-hits) - choose(all, drawn))
	sum := 0.0
	for k := hits; term > 0 && k <= min(marked, drawn); k++ {
		sum += term
		if term < sum*1e-12 {
			break
		}
		term *= float64(marked-k) * float64(drawn-k) / (float64(k+1) * float64(all-marked-drawn+k+1))
	}
	return min(sum, 1)
}
