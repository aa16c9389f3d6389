package diagnose

import (
	"cmp"
	"strings"
	"unicode"

	"github.com/longpole/longpole/internal/trace"
)

// place is where a piece of critical time belongs.
type place struct {
	segment            trace.Segment
	service, operation string
}

// The keys below are read in both generations of the semantic conventions, the current one first.
var (
	keysQuery   = []string{"db.query.text", "db.statement"}
	keysPeer    = []string{"service.peer.name", "peer.service"}
	keysAddress = []string{"server.address", "net.peer.name", "network.peer.address", "net.sock.peer.addr", "net.peer.ip", "peer.hostname", "peer.ipv4", "peer.address"}
	keysPort    = []string{"server.port", "net.peer.port", "network.peer.port", "net.sock.peer.port", "peer.port"}
	keysURL     = []string{"url.full", "http.url"}
	keysMethod  = []string{"http.request.method", "http.method"}
)

// caches, databases, gateways and clients name well-known programs and their client libraries, by the first
// word of an attribute, a peer or an operation. They decide only where nothing better is known.
var (
	caches    = words("redis memcached memcache valkey dragonfly keydb hazelcast ehcache cache")
	databases = words("sql pg pgx postgres postgresql mysql mariadb mssql oracle sqlite mongo mongodb cassandra jdbc db gorm cockroachdb dynamodb clickhouse elasticsearch")
	gateways  = words("gateway ingress ingressgateway envoy nginx haproxy traefik kong apisix proxy edge")
	clients   = words("browser loadgenerator loadgen locust k6")
	verbs     = words("SELECT INSERT UPDATE DELETE REPLACE UPSERT MERGE")
)

func words(s string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

func separator(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// first is the leading word of s in lower case.
func first(s string) string {
	s = strings.TrimLeftFunc(s, separator)
	if i := strings.IndexFunc(s, separator); i >= 0 {
		s = s[:i]
	}
	return strings.ToLower(s)
}

// anyWord reports whether one of the words of s is in set.
func anyWord(s string, set map[string]bool) bool {
	for w := range strings.FieldsFuncSeq(strings.ToLower(s), separator) {
		if set[w] {
			return true
		}
	}
	return false
}

// callee is the child that serves the call which span i makes, or -1. A SERVER child serves its CLIENT parent;
// without kinds, a child in another service does. A message is no call.
func callee(t *Tree, i int) int {
	s := &t.Spans[i]
	for _, c := range t.Children(i) {
		child := &t.Spans[c]
		switch {
		case child.Kind == trace.Consumer || child.Kind == trace.Producer || child.FollowsFrom:
		case child.Kind == trace.Server && s.Kind == trace.Client, child.Service != s.Service:
			return int(c)
		}
	}
	return -1
}

// entry reports whether span i is the first of its service on its way down: a root, or called from elsewhere.
func entry(t *Tree, i int) bool {
	p := t.Parent[i]
	return p < 0 || t.Spans[p].Service != t.Spans[i].Service || t.Spans[i].Kind == trace.Server && t.Spans[p].Kind == trace.Client
}

// calls reports whether span i stands for waiting for another service, and which child serves it (-1 = none is
// recorded). Without kinds, a span that is no entry and has nothing but one child, in another service, is a call.
func calls(t *Tree, i int) (served int, ok bool) {
	if t.served == nil {
		return findCall(t, i)
	}
	n := t.served[i]
	return max(int(n), -1), n != noCall
}

// noCall is in Tree.served for a span that makes no call.
const noCall = -2

func findCall(t *Tree, i int) (served int, ok bool) {
	switch s := &t.Spans[i]; s.Kind {
	case trace.Client:
		return callee(t, i), true
	case trace.Server, trace.Consumer, trace.Producer:
		return -1, false
	}
	if served = callee(t, i); served < 0 || entry(t, i) || len(t.Children(i)) != 1 {
		return -1, false
	}
	return served, true
}

// located finds where the time of the spans of many trees belongs.
type located struct {
	known [][]numbered // by spots number: the places that are called as the operation
	index map[place]int32
	list  []place
	names []naming // by spots number
}

// numbered is the number of a place of that segment.
type numbered struct {
	segment trace.Segment
	number  int32
}

func newLocated() *located { return &located{index: make(map[place]int32)} }

// all finds it for the spans of t, which must be marked, and whom they call. twins is what is known of them.
func (l *located) all(t *Tree, r *rolls, twins []*twin) {
	numbers := r.numbers.cut(2 * len(t.Spans))
	served := numbers[len(t.Spans):]
	for i := range t.Spans {
		if callee, ok := findCall(t, i); ok {
			served[i] = int32(callee)
		} else {
			served[i] = noCall
		}
	}
	t.served = served
	places := numbers[:len(t.Spans):len(t.Spans)]
	for i := range places {
		places[i] = l.numberOf(t, i, twins[i])
	}
	t.places = places
}

// numberOf is number, where x is known of span i; nil = nothing is.
func (l *located) numberOf(t *Tree, i int, x *twin) int32 {
	if x == nil || !x.placed || t.served[i] >= 0 {
		return l.number(t, i)
	}
	at := position{spot: t.spots[i], kind: t.Spans[i].Kind, leaf: len(t.Children(i)) == 0, call: t.served[i] != noCall}
	n, known := x.find(at)
	if !known {
		n = l.number(t, i)
		x.remember(at, n)
	}
	return n
}

// number is the number of the place where the time of span i belongs.
func (l *located) number(t *Tree, i int) int32 {
	at := findPlace(t, i, l)
	owner := i
	if served := t.served[i]; served >= 0 {
		owner = int(served)
	}
	if s := &t.Spans[owner]; at.service != s.Service || at.operation != s.Name {
		return l.add(at)
	}
	known := l.knownOf(t.spots[owner])
	for i := range *known {
		if (*known)[i].segment == at.segment {
			return (*known)[i].number
		}
	}
	n := l.add(at)
	if len(*known) < maxKnown {
		*known = append(*known, numbered{at.segment, n})
	}
	return n
}

// maxKnown is more than there are segments, but spans may name others.
const maxKnown = 10

func (l *located) knownOf(spot int32) *[]numbered {
	if n := int(spot) + 1 - len(l.known); n > 0 {
		l.known = append(l.known, make([][]numbered, n+len(l.known)/4)...)
	}
	return &l.known[spot]
}

func (l *located) add(at place) int32 {
	n, known := l.index[at]
	if !known {
		n = int32(len(l.list))
		l.index[at] = n
		l.list = append(l.list, at)
	}
	return n
}

// locate says where the time belongs that span i has for itself on the critical path.
func locate(t *Tree, i int) place {
	if t.known == nil {
		return findPlace(t, i, nil)
	}
	return t.known[t.places[i]]
}

// findPlace is locate, with what names tell remembered in l, if there is one.
func findPlace(t *Tree, i int, l *located) place {
	s := &t.Spans[i]
	served, isCall := calls(t, i)
	if served >= 0 {
		// What the callee's span does not cover went by on the way to it: the edge belongs to the callee.
		return place{trace.SegNetwork, t.Spans[served].Service, t.Spans[served].Name}
	}
	p := place{service: s.Service, operation: s.Name}
	told := t.tell(i)
	if p.segment = trace.Segment(told.segment); p.segment != "" {
		return p
	}
	var name naming
	if l != nil {
		name = l.nameOf(t, i)
	} else {
		name = readNames(s.Service, s.Name)
	}
	switch {
	case s.Kind != trace.Server && s.Kind != trace.Consumer && len(t.Children(i)) == 0 && t.store(i, &told, name, &p.segment):
	case s.Kind == trace.Producer, isCall && told.message:
		p.segment = trace.SegQueue
	case isCall:
		p.segment = trace.SegDownstream
		if name := t.peer(i); name != "" && !local(name) {
			p.service = name
		}
	case told.browser || name.client:
		p.segment = trace.SegClient
	case name.gateway || told.component == "proxy":
		p.segment = trace.SegGateway
	default:
		p.segment = trace.SegService
	}
	return p
}

// told is what the attributes of a span tell of where its time belongs.
type told struct {
	segment   string
	system    string // the kind of store
	component string
	query     bool // it has the text of a query
	message   bool // it is about a message
	browser   bool // it is from one
}

// tell reads the attributes of span i.
func (t *Tree) tell(i int) (x told) {
	if t.layouts != nil && t.layouts[i] != nil && !t.layouts[i].tells {
		return x
	}
	x.segment, x.component, x.query = t.attr(i, askSegment), t.attr(i, askComponent), t.attr(i, askQuery) != ""
	x.system = cmp.Or(t.attr(i, askSystem), t.attr(i, askOldSystem), t.attr(i, askStoreType))
	s := &t.Spans[i]
	for _, k := range t.all(i, kindMessage) {
		x.message = x.message || s.At(int(k)).Value != ""
	}
	for _, k := range t.all(i, kindBrowser) {
		a := s.At(int(k))
		x.browser = x.browser || a.Value == "webjs" || a.Value != "" && a.Key != "telemetry.sdk.language"
	}
	return x
}

// naming is what the names of a service and an operation tell.
type naming struct {
	read            bool          // it was looked at
	store           trace.Segment // that the operation is one of; "" = of none
	client, gateway bool
}

func readNames(service, operation string) naming {
	n := naming{read: true, client: clients[first(service)], gateway: anyWord(service, gateways)}
	switch word := first(operation); {
	case caches[word]:
		n.store = trace.SegCache
	case databases[word] || verb(operation):
		n.store = trace.SegDatabase
	}
	return n
}

// nameOf is what the names of span i tell, which is looked up only once for all spans of an operation.
func (l *located) nameOf(t *Tree, i int) naming {
	n := int(t.spots[i])
	if n >= len(l.names) {
		l.names = append(l.names, make([]naming, n+1-len(l.names)+len(l.names)/4)...)
	}
	if !l.names[n].read {
		l.names[n] = readNames(t.Spans[i].Service, t.Spans[i].Name)
	}
	return l.names[n]
}

// store reports whether span i is a call of a database or a cache, and which.
func (t *Tree) store(i int, told *told, name naming, segment *trace.Segment) bool {
	system := told.system
	if system == "" {
		system = told.component
		if system == "" || !known(system) {
			system = t.peerStore(i)
		}
	}
	switch {
	case system != "" && caches[first(system)]:
		*segment = trace.SegCache
	case system != "":
		*segment = trace.SegDatabase
	case name.store != "":
		*segment = name.store
	case told.query:
		*segment = trace.SegDatabase
	default:
		return false
	}
	return true
}

func known(system string) bool { return anyWord(system, databases) || anyWord(system, caches) }

// peerStore names the store behind span i, a CLIENT, by its peer ("redis-cart"), or "".
func (t *Tree) peerStore(i int) string {
	if t.Spans[i].Kind != trace.Client || t.attr(i, askMethod) != "" || t.attr(i, askRPC) != "" {
		return ""
	}
	if name := first(t.peer(i)); caches[name] || databases[name] {
		return name
	}
	return ""
}

// verb reports whether name is an SQL statement or its summary: "SELECT orders".
func verb(name string) bool {
	i := strings.IndexByte(name, ' ')
	return i > 0 && verbs[name[:i]]
}

// peer names the far end of the call of span i as well as that can tell, without a port; "" = it cannot.
func (t *Tree) peer(i int) string {
	if name := t.attr(i, askPeer); name != "" {
		return name
	}
	if name := t.attr(i, askAddress); name != "" {
		return name
	}
	return host(t.attr(i, askURL))
}

// host is the host of a URL without its port, or "".
func host(url string) string {
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "/")
	rest, _, _ = strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		rest = rest[:i]
	}
	return rest
}

// maxOperations is how many operations of one service are told apart. A service with more of them has IDs in
// their names, which are then replaced.
const maxOperations = 200

// namer keeps the operations of a service few. It must have counted all names before it gives any.
type namer struct {
	seen    map[string]map[string]struct{} // service -> operations, at most maxOperations+1 of them
	crowded bool                           // some service has too many
}

func newNamer() *namer { return &namer{seen: make(map[string]map[string]struct{})} }

func (n *namer) count(service, operation string) {
	ops := n.seen[service]
	if ops == nil {
		ops = make(map[string]struct{})
		n.seen[service] = ops
	}
	if len(ops) <= maxOperations {
		ops[operation] = struct{}{}
		n.crowded = n.crowded || len(ops) > maxOperations
	}
}

// name is the operation itself, or with IDs replaced where the service has too many operations.
func (n *namer) name(service, operation string) string {
	if !n.crowded {
		return operation
	}
	if len(n.seen[service]) <= maxOperations {
		return operation
	}
	return withoutIDs(operation)
}

// withoutIDs replaces by {id} every part of a path or name that holds a digit and is more than a version such as v1.
func withoutIDs(operation string) string {
	if !strings.ContainsFunc(operation, unicode.IsDigit) {
		return operation
	}
	parts := strings.FieldsFunc(operation, func(r rune) bool { return r == '/' || r == ' ' || r == '?' || r == '&' || r == '=' })
	var b strings.Builder
	rest := operation
	for _, part := range parts {
		at := strings.Index(rest, part)
		b.WriteString(rest[:at])
		rest = rest[at+len(part):]
		if strings.ContainsFunc(part, unicode.IsDigit) && !version(part) {
			part = "{id}"
		}
		b.WriteString(part)
	}
	b.WriteString(rest)
	return b.String()
}

func version(part string) bool { return len(part) <= 3 && (part[0] == 'v' || part[0] == 'V') }
