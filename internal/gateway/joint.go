package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/batch"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/internal/httpcache"
	"github.com/longpole/longpole/internal/trace"
)

var (
	errNoItem = errors.New("gateway: the joint answer does not have it")
	errUnread = errors.New("gateway: the joint answer is not understood")
)

// maxID bounds what a client can make a joint call's target grow by.
const maxID = 256

// joints are the batchers of all routes, by name. They outlive reloads that do not change them.
type joints struct {
	mu  sync.Mutex
	all map[string]*joint
}

// joint joins the calls of one route.
type joint struct {
	g       *Gateway
	route   string
	cfg     Batch
	id      piece
	target  template
	batcher *longpole.Batcher[string, json.RawMessage]

	joined, unread atomic.Uint64
}

// keep returns the batcher of a route, made anew when its settings changed.
func (j *joints) keep(g *Gateway, r *route) *joint {
	j.mu.Lock()
	defer j.mu.Unlock()
	if old := j.all[r.cfg.Name]; old != nil && reflect.DeepEqual(old.cfg, *r.cfg.Batch) {
		return old
	}
	id, _ := parsePlace(r.cfg.Batch.ID) // Validate has read both
	target, _ := parseTemplate(r.cfg.Batch.Target)
	n := &joint{g: g, route: r.cfg.Name, cfg: *r.cfg.Batch, id: id, target: target}
	n.batcher, _ = longpole.NewBatcher(n.cfg.Config, n.load)
	if j.all == nil {
		j.all = make(map[string]*joint)
	}
	// The one before is left to the calls that use it: it has no goroutine of its own.
	j.all[r.cfg.Name] = n
	return n
}

// retain forgets the batchers of routes that join no calls any more; those under way end as they began.
func (j *joints) retain(t *table) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name := range j.all {
		if r := t.byName[name]; r == nil || r.ways.batch == nil {
			delete(j.all, name)
		}
	}
}

// end gives up what waits.
func (j *joints) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, one := range j.all {
		one.batcher.Close()
	}
}

// Joined tells for a route with batch how many calls were answered from joint calls, and how many were made singly
// because a joint answer was not understood.
func (g *Gateway) Joined(route string) (joined, single uint64) {
	g.joints.mu.Lock()
	defer g.joints.mu.Unlock()
	if j := g.joints.all[route]; j != nil {
		return j.joined.Load(), j.unread.Load()
	}
	return 0, 0
}

// personal are the request fields that make a call unlike others: it travels alone.
var personal = []string{
	"Cookie", "Origin", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
	"Cache-Control", "Pragma", "Accept-Language",
}

// joinable returns the ID of a call that may travel with others.
func (j *joint) joinable(r *http.Request) (id string, ok bool) {
	if r.Method != http.MethodGet || r.ContentLength != 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return "", false
	}
	if httpcache.Authenticated(r.Header) {
		return "", false
	}
	for _, name := range personal {
		if len(r.Header[name]) > 0 {
			return "", false
		}
	}
	if accept := strings.Join(r.Header["Accept"], ","); accept != "" && !strings.Contains(accept, "json") && !strings.Contains(accept, "*/*") {
		return "", false
	}
	query := r.URL.Query()
	if j.id.from == "query" {
		if len(query) != 1 || len(query[j.id.name]) != 1 {
			return "", false // another parameter may mean another answer
		}
		id = query.Get(j.id.name)
	} else {
		segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
		if len(query) > 0 || j.id.at > len(segments) {
			return "", false
		}
		id, _ = url.PathUnescape(segments[j.id.at-1])
	}
	return id, id != "" && len(id) <= maxID && !strings.Contains(id, j.cfg.Separator)
}

// serveBatch answers from a joint call; false = the call is to be made by itself.
func (v *visit) serveBatch() bool {
	j := v.route.ways.batch
	id, ok := j.joinable(v.r)
	if !ok {
		return false
	}
	ctx, cancel := v.context()
	defer cancel()
	item, err := j.batcher.Get(ctx, j.key(v.r, id))
	if errors.Is(err, errUnread) || errors.Is(err, batch.ErrFull) || errors.Is(err, batch.ErrClosed) {
		j.unread.Add(1)
		return false
	}
	v.rec.Latency = time.Since(v.start)
	switch fault, isFault := errors.AsType[*partError](err); {
	case err == nil:
		j.joined.Add(1)
		v.status = http.StatusOK
		v.w.Header().Set("Content-Type", "application/json")
		v.body(append(bytes.TrimSpace(item), '\n'))
	case errors.Is(err, errNoItem):
		j.joined.Add(1)
		v.rec.Class = call.Client
		v.send(refusal{http.StatusNotFound, "no_item", "the upstream does not have it", 0})
	case isFault && v.r.Context().Err() == nil:
		v.rec.Class = fault.class
		v.send(refusal{fault.status, "batch_failed", fmt.Sprintf("the joint call failed: %d %s", fault.status, fault.reason), 0})
	default:
		v.rec.Class = longpole.Class(err)
		v.refuse(err, nil)
	}
	return true
}

// key is what is joined by: the calls of one batch may differ in their path and host as long as the joint call does not.
// The ID stands last, because it may hold anything; a host and an escaped path hold no line break.
func (j *joint) key(r *http.Request, id string) string {
	return strings.Join([]string{r.Host, r.URL.EscapedPath(), id}, "\n")
}

// load makes one call for each group of keys that has the same target.
func (j *joint) load(ctx context.Context, keys []string) ([]longpole.Result[json.RawMessage], error) {
	results := make([]longpole.Result[json.RawMessage], len(keys))
	type group struct {
		like *http.Request
		ids  []string
		at   []int
	}
	groups := make(map[string]*group)
	for n, key := range keys {
		part := strings.SplitN(key, "\n", 3)
		path, _ := url.PathUnescape(part[1])
		like := &http.Request{Host: part[0], URL: &url.URL{Path: path, RawPath: part[1]}}
		u, err := j.target.fill(like, "")
		if err != nil {
			results[n].Err = errUnread
			continue
		}
		name := part[0] + "\n" + u.RequestURI()
		if groups[name] == nil {
			groups[name] = &group{like: like}
		}
		groups[name].ids, groups[name].at = append(groups[name].ids, part[2]), append(groups[name].at, n)
	}
	var run sync.WaitGroup
	for _, gr := range groups {
		run.Go(func() {
			items, err := j.call(ctx, gr.like, gr.ids)
			for n, id := range gr.ids {
				r := &results[gr.at[n]]
				item, found := items[id]
				switch {
				case err != nil:
					r.Err = err
				case !found:
					r.Err = errNoItem
				default:
					r.Value = item
				}
			}
		})
	}
	run.Wait()
	return results, nil
}

// call makes one joint call, with nothing in it of any one client.
func (j *joint) call(ctx context.Context, like *http.Request, ids []string) (map[string]json.RawMessage, error) {
	rt := j.g.table.Load().byName[j.route]
	u, err := j.target.fill(like, strings.Join(ids, j.cfg.Separator))
	if rt == nil || err != nil {
		return nil, errUnread
	}
	r := innerRequest(ctx, http.MethodGet, like)
	r.URL, r.Header = u, http.Header{"Accept": {"application/json"}, "User-Agent": {pseudonym}, "Via": {via(1, 1)}}
	c := j.g.call(&inner{
		route: rt, r: r, header: r.Header, origin: parentage{trace: newID(2), flags: "01"}, name: j.route + " batch", kind: trace.Internal, limit: j.cfg.Bytes,
		attrs: []trace.Attribute{{Key: "longpole.batch.size", Value: fmt.Sprint(len(ids))}},
	})
	body, err := jsonOf(c)
	if fault, ok := errors.AsType[*partError](err); ok {
		if c.status >= 500 || c.status == 0 || c.status == http.StatusTooManyRequests || c.reason() != "" && !c.over {
			return nil, jointFault(fault)
		}
		return nil, errUnread
	}
	return splitItems(body.body, j.cfg.Items, j.cfg.Key)
}

// jointFault is what each of those who waited for a failed joint call is answered.
func jointFault(e *partError) *partError {
	f := *e
	switch {
	case f.status == 0 || f.status == statusClientGone:
		f.status, f.reason, f.class = http.StatusGatewayTimeout, "timeout", call.Timeout
	case f.status < http.StatusTooManyRequests: // it broke off
		f.status = http.StatusBadGateway
	}
	return &f
}

// splitItems takes a joint answer apart, by ID. The error is errUnread.
func splitItems(body json.RawMessage, member, key string) (map[string]json.RawMessage, error) {
	if member != "" {
		var whole map[string]json.RawMessage
		if json.Unmarshal(body, &whole) != nil || whole[member] == nil {
			return nil, errUnread
		}
		body = whole[member]
	}
	if key == "" {
		var byID map[string]json.RawMessage
		if json.Unmarshal(body, &byID) != nil || byID == nil {
			return nil, errUnread
		}
		for id, item := range byID {
			if string(item) == "null" {
				delete(byID, id)
			}
		}
		return byID, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(body, &list) != nil || list == nil {
		return nil, errUnread
	}
	byID := make(map[string]json.RawMessage, len(list))
	for _, item := range list {
		if string(item) == "null" {
			continue
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(item, &members) != nil {
			return nil, errUnread
		}
		id, ok := idText(members[key])
		if !ok {
			return nil, errUnread
		}
		byID[id] = item
	}
	return byID, nil
}

// idText is an ID, which JSON may have as a text or a number, as a client writes it.
func idText(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	var n json.Number
	if len(raw) > 0 && raw[0] != 'n' && json.Unmarshal(raw, &n) == nil {
		return n.String(), true
	}
	return "", false
}
