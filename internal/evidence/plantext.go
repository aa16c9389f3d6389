package evidence

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const frame = "|│║┃"

// unframe takes the lines of a plan out of a client's frame.
func unframe(s string) []string {
	var out []string
	for line := range strings.SplitSeq(strings.ReplaceAll(s, "\t", "        "), "\n") {
		line = strings.TrimRight(line, " \r")
		line = strings.TrimLeft(line, frame)
		line = strings.TrimRight(strings.TrimRight(line, frame), " ")
		if bare := strings.TrimSpace(line); bare == "" || strings.Trim(bare, "-─═=+┼╪╬╔╗╚╝╠╣┌┐└┘├┤━╦╩┬┴╒╕╘╛╞╡╓╖╙╜╟╢ |") == "" {
			continue
		}
		if cut, ok := continued(line); ok {
			line = cut
		}
		out = append(out, unquote(line))
	}
	return out
}

// continued drops the mark of psql for a line that goes on in the same cell.
func continued(line string) (string, bool) {
	for _, mark := range []string{"+", "↵", "⏎"} {
		if cut, ok := strings.CutSuffix(line, mark); ok && (strings.HasSuffix(cut, " ") || strings.HasSuffix(cut, "[") || strings.HasSuffix(cut, "{") || strings.HasSuffix(cut, ",") || strings.HasSuffix(cut, ")")) {
			return strings.TrimRight(cut, " "), true
		}
	}
	return line, false
}

// unquote takes the quotes of pgAdmin and of CSV off a line.
func unquote(line string) string {
	for _, q := range []string{`"`, `'`} {
		if inner, ok := strings.CutPrefix(line, q); ok && len(inner) > 0 && strings.HasSuffix(inner, q) && strings.Count(inner, q)%2 == 1 {
			return strings.ReplaceAll(inner[:len(inner)-1], q+q, q)
		}
	}
	if strings.HasSuffix(line, `"`) && strings.Count(line, `"`)%2 == 1 {
		return line[:len(line)-1]
	}
	return line
}

// rejoin puts lines together that a terminal wrapped: while parentheses are open, or after a comma.
func rejoin(lines []string) []string {
	const most = 64 // lines that are one
	var out []string
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if !strings.Contains(line, "(") && !strings.HasSuffix(line, ",") && !strings.Contains(line, "->  ") || strings.HasPrefix(strings.TrimSpace(line), "--") {
			out = append(out, line)
			continue
		}
		for n := 1; n < most && i+1 < len(lines) && (open(line) || !begins(lines[i+1]) && (strings.HasSuffix(line, ",") || headless(line))); n++ {
			i++
			line += lines[i]
		}
		out = append(out, line)
	}
	return out
}

// headless tells whether line is that of a node, and was wrapped before its figures.
func headless(line string) bool {
	_, figures := nodeLine(strings.TrimSpace(line))
	return figures == nil && strings.HasPrefix(strings.TrimSpace(line), "->  ")
}

func begins(line string) bool { return strings.Contains(line, "->  ") }

// open tells whether line has more opening than closing parentheses outside of strings.
func open(line string) bool {
	depth, inside := 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			inside = !inside
		case inside:
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
	}
	return depth > 0
}

var (
	nodeFigures = regexp.MustCompile(`\s*(?:\(cost=([\d.]+)\.\.([\d.]+)\s*rows=([\d.]+)\s*width=(\d+)\))?\s*(?:\(actual(?:\s*time=([\d.]+)\.\.([\d.]+))?\s*rows=([\d.]+)\s*loops=(\d+)\)|\((never\s*executed)\))?$`)
	labelLine   = regexp.MustCompile(`^(InitPlan|SubPlan|CTE)\b(?: [^:]*)?$`)
	workerLine  = regexp.MustCompile(`^Worker \d+:`)
	planLine    = regexp.MustCompile(`^(?i)(planning time|execution time|total runtime|planning|jit|settings|query identifier|trigger .*?|execution|serialization):\s*(.*)$`)
	triggerLine = regexp.MustCompile(`^(?i)trigger (.*): time=([\d.]+) calls=([\d.]+)`)
)

// textReader holds the nodes that are open, outermost first, with the columns at which their texts begin.
type textReader struct {
	plan  Plan
	done  bool
	nodes int
	open  []level
	skip  int // lines deeper than this belong to a worker or to a part of the plan that is not read; -1 = none
}

type level struct {
	column int
	node   *Node  // nil for a label
	label  string // "InitPlan 1 (returns $0)"
}

func readText(lines []string) (*Plan, error) {
	r := textReader{skip: -1}
	for _, l := range lines {
		if err := r.line(l); err != nil {
			return nil, err
		}
		if r.done {
			break
		}
	}
	if r.plan.Root == nil {
		return nil, fmt.Errorf("%w: no line with costs or times in it", ErrPlan)
	}
	return &r.plan, nil
}

func (r *textReader) line(l string) error {
	bare := strings.TrimLeft(l, " ")
	column := utf8.RuneCountInString(l) - utf8.RuneCountInString(bare)
	head, figures := nodeLine(bare)
	if figures != nil && !strings.HasPrefix(bare, "Worker ") {
		r.skip = -1
		return r.node(column, head, figures)
	}
	if r.plan.Root == nil {
		return nil // what stood before the plan
	}
	if r.skip >= 0 && column > r.skip {
		return nil
	}
	r.skip = -1
	if m := planLine.FindStringSubmatch(bare); m != nil {
		r.planLine(column, strings.ToLower(m[1]), m[2], bare)
		return nil
	}
	if workerLine.MatchString(bare) {
		r.skip = column
		return nil
	}
	r.pop(column)
	if labelLine.MatchString(bare) {
		r.open = append(r.open, level{column, nil, bare})
		return nil
	}
	for _, l := range slices.Backward(r.open) {
		if l.node != nil {
			l.node.detail(bare)
			break
		}
	}
	return nil
}

// nodeLine gives the head of a node's line, as "->  Seq Scan on t", and its figures; nil when it is none.
func nodeLine(bare string) (string, []string) {
	at := strings.Index(bare, "(cost=")
	for _, s := range []string{"(actual ", "(never executed)"} {
		if i := strings.Index(bare, s); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at <= 0 {
		return "", nil
	}
	m := nodeFigures.FindStringSubmatch(bare[at:])
	if m == nil || len(m[0]) != len(bare)-at {
		return "", nil
	}
	return strings.TrimSpace(bare[:at]), m
}

func (r *textReader) pop(column int) {
	for len(r.open) > 0 && r.open[len(r.open)-1].column >= column {
		r.open = r.open[:len(r.open)-1]
	}
}

func (r *textReader) node(column int, head string, m []string) error {
	n := &Node{StartupCost: num(m[1]), TotalCost: num(m[2]), Rows: num(m[3]), Width: num(m[4])}
	n.ActualStartup, n.ActualTotal, n.ActualRows, n.Loops = num(m[5]), num(m[6]), num(m[7]), num(m[8])
	n.Executed = m[8] != "" || m[9] != ""
	inner, arrow := strings.CutPrefix(head, "->")
	n.title(strings.TrimSpace(inner))
	if arrow && r.plan.Root != nil {
		r.pop(column)
	} else if r.plan.Root != nil {
		r.done = true // a second plan
		return nil
	}
	if r.nodes++; r.nodes > maxPlanNodes || len(r.open) > maxPlanDepth {
		return fmt.Errorf("%w: more than %d nodes or %d levels", ErrPlan, maxPlanNodes, maxPlanDepth)
	}
	r.attach(n)
	if arrow {
		column += len(head) - len(strings.TrimSpace(inner))
	}
	r.open = append(r.open, level{column, n, ""})
	return nil
}

func (r *textReader) attach(n *Node) {
	if r.plan.Root == nil {
		r.plan.Root = n
		return
	}
	for _, l := range slices.Backward(r.open) {
		if l.node != nil {
			l.node.Children = append(l.node.Children, n)
			return
		} else if n.Subplan == "" {
			n.Subplan = l.label
			n.Parent = "InitPlan"
			if strings.HasPrefix(l.label, "SubPlan") {
				n.Parent = "SubPlan"
			}
		}
	}
	r.plan.Root.Children = append(r.plan.Root.Children, n)
}

var joins = regexp.MustCompile(`^(Hash|Merge|Nested Loop) (Left|Right|Full|Semi|Anti|Right Semi|Right Anti)(?: Join)?$`)

// title reads "Parallel Index Scan Backward using i on s.t a".
func (n *Node) title(s string) {
	for _, prefix := range []string{"Parallel ", "Async ", "Partial ", "Finalize ", "Simple "} {
		var cut bool
		if s, cut = strings.CutPrefix(s, prefix); cut && prefix == "Parallel " {
			n.Parallel = true
		}
	}
	s, on, _ := cutOutside(s, " on ")
	s, using, _ := cutOutside(s, " using ")
	n.Type, n.Index = s, using
	if cut, ok := strings.CutSuffix(n.Type, " Backward"); ok {
		n.Type, n.Backward = cut, true
	}
	switch {
	case n.Type == "Insert" || n.Type == "Update" || n.Type == "Delete" || n.Type == "Merge" && on != "":
		n.Op = n.Type
		n.Type = "ModifyTable"
	case n.Type == "Bitmap Index Scan":
		n.Index, on = on, ""
	case on == "" && strings.HasPrefix(n.Type, "Subquery Scan "): // before 9.1
		n.Type, on = "Subquery Scan", n.Type[len("Subquery Scan "):]
	}
	if m := joins.FindStringSubmatch(n.Type); m != nil {
		n.Type, n.Join = m[1], m[2]
		if m[1] != "Nested Loop" {
			n.Type += " Join"
		}
	}
	n.Relation, n.Alias, _ = cutOutside(on, " ")
}

// cutOutside is strings.Cut that does not look into quoted names.
func cutOutside(s, sep string) (before, after string, found bool) {
	inside := false
	for i := 0; i+len(sep) <= len(s); i++ {
		if s[i] == '"' {
			inside = !inside
		}
		if !inside && s[i:i+len(sep)] == sep {
			return s[:i], s[i+len(sep):], true
		}
	}
	return s, "", false
}

func (r *textReader) planLine(column int, key, value, bare string) {
	switch key {
	case "planning time":
		r.plan.PlanningMS = num(strings.TrimSuffix(value, " ms"))
	case "execution time", "total runtime":
		r.plan.ExecutionMS = num(strings.TrimSuffix(value, " ms"))
	case "query identifier":
		r.plan.QueryID, _ = strconv.ParseInt(value, 10, 64)
	case "settings":
		r.plan.Settings = settings(value)
	case "planning", "jit", "execution", "serialization":
		r.skip = column
	default:
		if m := triggerLine.FindStringSubmatch(bare); m != nil && len(r.plan.Triggers) < maxPlanNodes {
			r.plan.Triggers = append(r.plan.Triggers, Trigger{m[1], num(m[2]), num(m[3])})
		}
	}
}

var settingPair = regexp.MustCompile(`([\w.]+) = '((?:[^']|'')*)'`)

func settings(s string) map[string]string {
	out := map[string]string{}
	for _, m := range settingPair.FindAllStringSubmatch(s, 1000) {
		out[m[1]] = strings.ReplaceAll(m[2], "''", "'")
	}
	return out
}

var (
	sortMethod = regexp.MustCompile(`^(.*?)\s+(Memory|Disk): (\d+)kB`)
	batches    = regexp.MustCompile(`Batches: (\d+)`)
	block      = regexp.MustCompile(`(shared|local|temp|hit|read|written|dirtied|write)(?:=([\d.]+))?`)
)

func (n *Node) detail(bare string) {
	key, value, ok := strings.Cut(bare, ": ")
	if !ok {
		return
	}
	value = strings.TrimSpace(value)
	texts := map[string]*string{
		"Index Cond": &n.IndexCond, "Recheck Cond": &n.RecheckCond, "TID Cond": &n.TIDCond, "Filter": &n.Filter, "Join Filter": &n.JoinFilter,
		"Hash Cond": &n.HashCond, "Merge Cond": &n.MergeCond,
	}
	if at := texts[key]; at != nil {
		*at = value
		return
	}
	switch key {
	case "Sort Key":
		n.SortKey = list(value)
	case "Group Key":
		n.GroupKey = list(value)
	case "Rows Removed by Filter":
		n.Removed = num(value)
	case "Sort Method":
		if m := sortMethod.FindStringSubmatch(value); m != nil {
			n.SortMethod, n.SortSpace, n.SortKB = m[1], m[2], num(m[3])
		}
	case "Buckets":
		if m := batches.FindStringSubmatch(value); m != nil {
			n.Batches = num(m[1])
		}
	case "Buffers":
		n.blocks(value)
	case "I/O Timings":
		n.ioTimes(value)
	}
}

func (n *Node) blocks(value string) {
	scope := ""
	for _, m := range block.FindAllStringSubmatch(value, 32) {
		if m[2] == "" {
			scope = m[1]
			continue
		}
		switch scope + " " + m[1] {
		case "shared hit":
			n.SharedHit = num(m[2])
		case "shared read":
			n.SharedRead = num(m[2])
		case "temp read":
			n.TempRead = num(m[2])
		case "temp written":
			n.TempWritten = num(m[2])
		}
	}
}

func (n *Node) ioTimes(value string) {
	scope := "shared" // before 15 none is told
	for _, m := range block.FindAllStringSubmatch(value, 32) {
		if m[2] == "" {
			scope = m[1]
		} else if scope == "shared" && m[1] == "read" {
			n.ReadMS = num(m[2])
		}
	}
}

// list splits at the commas that stand in no parentheses and no quotes.
func list(s string) []string {
	var out []string
	depth, from, quote := 0, 0, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[from:]))
}

func num(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f > 1e300 {
		return 0
	}
	return f
}
