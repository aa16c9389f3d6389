package diagnose

import (
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
	keysSegment  = []string{"longpole.segment"}
	keysDatabase = []string{"db.system.name", "db.system", "db.type"}
	keysQuery    = []string{"db.query.text", "db.statement"}
	keysMessage  = []string{"messaging.system", "message_bus.destination"}
	keysPeer     = []string{"service.peer.name", "peer.service"}
	keysAddress  = []string{"server.address", "net.peer.name", "network.peer.address", "net.sock.peer.addr", "net.peer.ip", "peer.hostname", "peer.ipv4", "peer.address"}
	keysPort     = []string{"server.port", "net.peer.port", "network.peer.port", "net.sock.peer.port", "peer.port"}
	keysURL      = []string{"url.full", "http.url"}
	keysMethod   = []string{"http.request.method", "http.method"}
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

// locate says where the time belongs that span i has for itself on the critical path.
func locate(t *Tree, i int) place {
	s := &t.Spans[i]
	served, isCall := calls(t, i)
	p := place{service: s.Service, operation: s.Name}
	if served >= 0 {
		// What the callee's span does not cover went by on the way to it: the edge belongs to the callee.
		p.service, p.operation = t.Spans[served].Service, t.Spans[served].Name
	}
	if served >= 0 {
		p.segment = trace.SegNetwork
		return p
	}
	p.segment = trace.Segment(s.Attr(keysSegment...))
	if p.segment != "" {
		return p
	}
	switch {
	case s.Kind != trace.Server && s.Kind != trace.Consumer && len(t.Children(i)) == 0 && store(s, &p.segment):
	case s.Kind == trace.Producer, isCall && queueOperation(s):
		p.segment = trace.SegQueue
	case isCall:
		p.segment = trace.SegDownstream
		if name := peer(s); name != "" {
			p.service = name
		}
	case isClient(s):
		p.segment = trace.SegClient
	case anyWord(s.Service, gateways) || s.Attr("component") == "proxy":
		p.segment = trace.SegGateway
	default:
		p.segment = trace.SegService
	}
	return p
}

// store reports whether s is a call of a database or a cache, and which.
func store(s *trace.Span, segment *trace.Segment) bool {
	system := s.Attr(keysDatabase...)
	if system == "" {
		system = s.Attr("component")
		if !known(system) {
			system = peerStore(s)
		}
	}
	switch word := first(system); {
	case caches[word]:
		*segment = trace.SegCache
	case system != "":
		*segment = trace.SegDatabase
	case caches[first(s.Name)]:
		*segment = trace.SegCache
	case databases[first(s.Name)] || verb(s.Name) || s.Attr(keysQuery...) != "":
		*segment = trace.SegDatabase
	default:
		return false
	}
	return true
}

func known(system string) bool { return anyWord(system, databases) || anyWord(system, caches) }

// peerStore names the store behind a CLIENT span by its peer ("redis-cart"), or "".
func peerStore(s *trace.Span) string {
	if s.Kind != trace.Client || s.Attr(keysMethod...) != "" || s.Attr("rpc.system", "rpc.system.name") != "" {
		return ""
	}
	if name := first(peer(s)); caches[name] || databases[name] {
		return name
	}
	return ""
}

// verb reports whether name is an SQL statement or its summary: "SELECT orders".
func verb(name string) bool {
	i := strings.IndexByte(name, ' ')
	return i > 0 && verbs[name[:i]]
}

func queueOperation(s *trace.Span) bool { return s.Attr(keysMessage...) != "" }

func isClient(s *trace.Span) bool {
	return s.Attr("telemetry.sdk.language") == "webjs" || s.Attr("browser.platform", "browser.language") != "" || clients[first(s.Service)]
}

// peer names the far end of a call as well as the span can tell, without a port; "" = it cannot.
func peer(s *trace.Span) string {
	if name := s.Attr(keysPeer...); name != "" {
		return name
	}
	if name := s.Attr(keysAddress...); name != "" {
		return name
	}
	return host(s.Attr(keysURL...))
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
	seen map[string]map[string]struct{} // service -> operations, at most maxOperations+1 of them
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
	}
}

// name is the operation itself, or with IDs replaced where the service has too many operations.
func (n *namer) name(service, operation string) string {
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
