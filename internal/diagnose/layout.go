package diagnose

import (
	"math"
	"slices"

	"github.com/longpole/longpole/internal/trace"
)

// ask is a question to the attributes of a span, in all conventions: the first of its keys that is there has the answer.
type ask uint8

// The questions of the rules.
const (
	askQuery ask = iota
	askPeer
	askAddress
	askPort
	askURL
	askMethod
	askPath
	askTarget
	askURLPath
	askURLQuery
	askPersonal
	askInstance
	askPod
	askEndpoint
	askRPC
	askColdStart
	askWasCold
	askSegment
	askSystem
	askOldSystem
	askStoreType
	askComponent
	askTopic
	questions int = iota
)

// answers is the keys of each question.
var answers = [questions][]string{
	askQuery:     keysQuery,
	askPeer:      keysPeer,
	askAddress:   keysAddress,
	askPort:      keysPort,
	askURL:       keysURL,
	askMethod:    keysMethod,
	askPath:      {"url.path", "http.target"},
	askTarget:    {"http.target"},
	askURLPath:   {"url.path"},
	askURLQuery:  {"url.query"},
	askPersonal:  {"http.request.header.authorization", "http.request.header.cookie", "enduser.id", "user.id"},
	askInstance:  {"service.instance.id", "k8s.pod.name", "host.name", "faas.instance"},
	askPod:       {"service.instance.id", "k8s.pod.name", "host.name"},
	askEndpoint:  {"longpole.endpoint"},
	askRPC:       {"rpc.system", "rpc.system.name"},
	askColdStart: {"faas.coldstart", "faas.cold_start", "cold_start"},
	askWasCold:   {"faas.coldstart", "faas.cold_start"},
	askSegment:   {"longpole.segment"},
	askSystem:    {"db.system.name"},
	askOldSystem: {"db.system"},
	askStoreType: {"db.type"},
	askComponent: {"component"},
	askTopic:     {"messaging.destination.name", "messaging.destination", "message_bus.destination"},
}

// kind is attributes of which several may tell something, not only the first.
type kind uint8

// The kinds of attributes.
const (
	kindStatus    kind = iota // the status of HTTP
	kindRPC                   // the status of an RPC
	kindGRPC                  // of these, the keys of gRPC alone
	kindReason                // why a call ended
	kindCanceled              // that the caller called it off
	kindComplaint             // what is said of an error
	kindSize                  // the size of a payload
	kindResent                // how often a call was sent before
	kindMessage               // that it is about a message
	kindBrowser               // that it is from a browser
	kinds         int  = iota
)

var kindKeys = [kinds][]string{
	kindStatus:   {"http.response.status_code", "http.status_code"},
	kindRPC:      {"rpc.response.status_code", "rpc.grpc.status_code", "grpc.status_code", "rpc.status_code", "rpc.connect_rpc.error_code"},
	kindGRPC:     {"rpc.grpc.status_code", "grpc.status_code", "rpc.status_code"},
	kindReason:   {"error.type", "exception.type", "otel.status_description", "rpc.response.status_code", "rpc.connect_rpc.error_code"},
	kindCanceled: {"canceled", "cancelled"},
	kindComplaint: {
		"error.type", "exception.type", "exception.message", "error.message", "otel.status_description", "db.response.status_code", "error.kind", "message",
	},
	kindSize: {
		"http.response.body.size", "http.response_content_length", "http.response_content_length_uncompressed", "http.response.size",
		"http.response.header.content-length", "http.request.body.size", "http.request_content_length", "http.request_content_length_uncompressed",
		"http.request.size", "messaging.message.body.size", "messaging.message.envelope.size", "messaging.message_payload_size_bytes",
		"rpc.server.response.size", "rpc.client.response.size", "rpc.message.uncompressed_size", "message.uncompressed_size", "db.response.size",
	},
	kindResent:  {"http.request.resend_count", "http.resend_count", "grpc.previous-rpc-attempts", "retry.count", "retry_count"},
	kindMessage: {"messaging.system", "message_bus.destination"},
	kindBrowser: {"telemetry.sdk.language", "browser.platform", "browser.language"},
}

// kindLengths rules out most keys: bit n is set where a key of the kind has n bytes, modulo 64.
var kindLengths = func() (lengths [kinds]uint64) {
	for k, keys := range kindKeys {
		for _, key := range keys {
			lengths[k] |= 1 << (len(key) & 63)
		}
	}
	return lengths
}()

// find is which of the attributes of s are of kind k.
func (k kind) find(s *trace.Span) (list []int16) {
	for i := range min(s.Len(), math.MaxInt16) {
		if key := s.At(i).Key; kindLengths[k]>>(len(key)&63)&1 != 0 && slices.Contains(kindKeys[k], key) {
			list = append(list, int16(i))
		}
	}
	return list
}

// layout is the keys of a span's attributes, in their order: most spans of an operation have the same ones, so that what
// they mean needs to be found out once.
type layout struct {
	keys  []string
	tells bool             // some attribute tells of where the time belongs
	at    [questions]int16 // the attribute that answers; -1 = none
	kinds [kinds][]int16   // the attributes of each kind, in order

	query  string // the one that was seen last
	reads  bool   // it is a read
	writes bool   // it changes rows
}

// of is l with what a query tells. Most spans of an operation have the same one.
func (l *layout) of(query string) *layout {
	if l.query != query {
		l.query, l.reads, l.writes = query, isRead(query), changesRows(query)
	}
	return l
}

func newLayout(s *trace.Span) *layout {
	l := &layout{keys: make([]string, s.Len())}
	for i := range l.keys {
		l.keys[i] = s.At(i).Key
	}
	for k := range kinds {
		l.kinds[k] = kind(k).find(s)
	}
	for a, keys := range answers {
		l.at[a] = -1
		for _, k := range keys {
			if i := slices.Index(l.keys, k); i >= 0 {
				l.at[a] = int16(i)
				break
			}
		}
	}
	l.tells = slices.ContainsFunc(asksOfPlace, func(a ask) bool { return l.at[a] >= 0 }) ||
		slices.ContainsFunc(kindsOfPlace, func(k kind) bool { return len(l.kinds[k]) > 0 })
	return l
}

// asksOfPlace and kindsOfPlace are what [Tree.tell] asks.
var (
	asksOfPlace  = []ask{askSegment, askComponent, askQuery, askSystem, askOldSystem, askStoreType}
	kindsOfPlace = []kind{kindMessage, kindBrowser}
)

// fits reports whether l is the layout of the attributes of s. Keys mostly share their memory, and then are equal at a glance.
func (l *layout) fits(s *trace.Span) bool {
	if len(l.keys) != s.Len() {
		return false
	}
	for i, k := range l.keys {
		if s.At(i).Key != k {
			return false
		}
	}
	return true
}

// The bounds of the layouts. Spans beyond them have none, and are read as they are.
const (
	maxLayouts    = 1 << 12
	maxLayoutKeys = 1 << 8
)

// layouts finds the layouts of spans.
type layouts struct {
	shared [1 << 10]sharedLayout // the ones that were found last, by what spans share
	recent [1 << 8]*layout       // and by a hash of their keys
	all    map[uint64][]*layout
	n      int
}

// sharedLayout is the layout of spans with these keys.
type sharedLayout struct {
	keys   *trace.Keys
	layout *layout
}

func newLayouts() *layouts { return &layouts{all: make(map[uint64][]*layout)} }

// of is the layout of the attributes of s; nil = there is no room for it.
func (o *layouts) of(s *trace.Span) *layout {
	keys := s.Keys()
	if keys == nil {
		return o.search(s)
	}
	slot := &o.shared[keys.Hash%uint64(len(o.shared))]
	if slot.keys != keys {
		*slot = sharedLayout{keys, o.search(s)}
	}
	return slot.layout
}

// search looks at all keys.
func (o *layouts) search(s *trace.Span) *layout {
	n := s.Len()
	h := uint32(n) * 0x9E3779B1
	if n > 0 {
		h ^= quickHash(s.At(0).Key, s.At(n-1).Key) ^ quickHash(s.At(n/2).Key, s.At(n/3).Key)<<3
	}
	slot := &o.recent[h>>3%uint32(len(o.recent))]
	if l := *slot; l != nil && l.fits(s) {
		return l
	}
	l := o.find(s)
	if l != nil {
		*slot = l
	}
	return l
}

func (o *layouts) find(s *trace.Span) *layout {
	if s.Len() > maxLayoutKeys {
		return nil
	}
	h := uint64(14695981039346656037) // FNV-1a
	for i := range s.Len() {
		key := s.At(i).Key
		for k := range len(key) {
			h = (h ^ uint64(key[k])) * 1099511628211
		}
		h = (h ^ 0xFF) * 1099511628211
	}
	for _, l := range o.all[h] {
		if l.fits(s) {
			return l
		}
	}
	if o.n >= maxLayouts {
		return nil
	}
	o.n++
	l := newLayout(s)
	o.all[h] = append(o.all[h], l)
	return l
}

// marks is what is asked of a span again and again: its attributes are read once, when its tree is made.
type marks uint8

const (
	marked     marks = 1 << iota // the others are known
	markFailed                   // see Tree.failed
	markResent                   // see Tree.resent
	markRead                     // see Tree.reads
	markWrite                    // see Tree.writes
	markSized                    // see Tree.size
)

// mark finds the marks of span i, of which x is known; nil = nothing is.
func (t *Tree) mark(i int, x *twin) {
	var m marks
	if x != nil && x.marks != 0 {
		if m = x.marks; t.Spans[i].Failed {
			m |= markFailed
		}
	} else {
		m = t.read(i)
	}
	t.marks[i] = m
	t.has |= m
}

// read finds the marks of span i in its attributes.
func (t *Tree) read(i int) marks {
	m := marked
	if t.failed(i) {
		m |= markFailed
	}
	if t.resent(i) {
		m |= markResent
	}
	if t.reads(i) {
		m |= markRead
	}
	if t.writes(i) {
		m |= markWrite
	}
	if len(t.all(i, kindSize)) > 0 {
		m |= markSized
	}
	return m
}

// any reports whether a span of t may have the mark m.
func (t *Tree) any(m marks) bool { return t.marks == nil || t.has&m != 0 }

// knows reports whether span i has the mark m, if that is known.
func (t *Tree) knows(i int, m marks) (has, known bool) {
	if t.marks == nil {
		return false, false
	}
	return t.marks[i]&m != 0, t.marks[i] != 0
}

// attr is what span i answers; "" = nothing.
func (t *Tree) attr(i int, a ask) string {
	s := &t.Spans[i]
	if t.layouts != nil {
		if l := t.layouts[i]; l != nil {
			if n := l.at[a]; n >= 0 {
				return s.At(int(n)).Value
			}
			return ""
		}
	}
	return s.Attr(answers[a]...)
}

// all is which attributes of span i are of that kind. The caller must not change it.
func (t *Tree) all(i int, k kind) []int16 {
	if t.layouts != nil {
		if l := t.layouts[i]; l != nil {
			return l.kinds[k]
		}
	}
	return k.find(&t.Spans[i])
}

// last is the value of the last attribute of span i of that kind; "" = it has none.
func (t *Tree) last(i int, k kind) string {
	if list := t.all(i, k); len(list) > 0 {
		return t.Spans[i].At(int(list[len(list)-1])).Value
	}
	return ""
}
