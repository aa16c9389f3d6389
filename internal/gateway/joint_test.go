package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const items = `
listen: gw:80
upstreams: {up: {endpoints: ["http://a:1"]}}
routes:
- name: items
  match: {path: /items}
  upstream: up
  policy: {retry: {off: true}}
  batch: {id: ID, target: "/items?ids={ids}", items: data, key: id, age: 10ms, size: 50}
`

// stock answers joint calls and single ones, and notes them.
type stock struct {
	mu    sync.Mutex
	calls []string
	bad   atomic.Value // answer to joint calls; "" = a good one
	code  atomic.Int32
}

func (s *stock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.calls = append(s.calls, r.RequestURI)
	s.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	ids, joint := r.URL.Query()["ids"]
	if !joint {
		fmt.Fprintf(w, `{"single":%q}`, r.RequestURI)
		return
	}
	if c := s.code.Load(); c != 0 {
		w.WriteHeader(int(c))
		return
	}
	if bad, _ := s.bad.Load().(string); bad != "" {
		_, _ = w.Write([]byte(bad))
		return
	}
	var list []string
	for id := range strings.SplitSeq(ids[0], ",") {
		if id == "404" {
			continue
		}
		if id[0] >= '0' && id[0] <= '9' {
			list = append(list, fmt.Sprintf(`{"id":%s,"n":"item"}`, id))
		} else {
			list = append(list, fmt.Sprintf(`{"id":%q,"n":"item"}`, id))
		}
	}
	fmt.Fprintf(w, `{"data":[%s]}`, strings.Join(list, ","))
}

func (s *stock) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.calls
	s.calls = nil
	return all
}

// together makes calls at the same time.
func together(t *testing.T, c *http.Client, targets ...string) map[string]answer {
	t.Helper()
	all := make(map[string]answer)
	var mu sync.Mutex
	var run sync.WaitGroup
	for _, target := range targets {
		r := request(t, http.MethodGet, "http://gw:80"+target, nil)
		run.Go(func() {
			a := do(c, r)
			mu.Lock()
			defer mu.Unlock()
			all[target] = a
		})
	}
	run.Wait()
	return all
}

func TestCallsForSingleThingsTravelTogether(t *testing.T) {
	for _, tt := range []struct{ id, format string }{{"query.id", "/items?id=%s"}, {"segment.2", "/items/%s"}} {
		synctest.Test(t, func(t *testing.T) {
			n, s := newNetwork(), &stock{}
			n.serve(t, "a:1", s.ServeHTTP)
			g := n.start(t, strings.Replace(items, "ID", tt.id, 1), nil)
			c := n.client(t)
			place := func(id string) string { return fmt.Sprintf(tt.format, id) }
			var targets []string
			for id := range 20 {
				targets = append(targets, place(fmt.Sprint(id+1)))
			}
			targets = append(targets, place("404"), place("x%2Fy"))
			got := together(t, c, targets...)
			for id := range 20 {
				if a := got[targets[id]]; a.status != 200 || a.body != fmt.Sprintf(`{"id":%d,"n":"item"}`+"\n", id+1) || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %+v", targets[id], a)
				}
			}
			if a := got[place("404")]; a.status != 404 || a.header.Get("X-Longpole-Error") != "no_item" {
				t.Errorf("%+v", a)
			}
			if a := got[place("x%2Fy")]; a.status != 200 || !strings.Contains(a.body, `"x/y"`) {
				t.Errorf("%+v", a)
			}
			if calls := s.take(); len(calls) > 4 {
				t.Errorf("22 calls became %d: %q", len(calls), calls)
			}
			if joined, single := g.Joined("items"); joined != 22 || single != 0 {
				t.Error(joined, single)
			}
		})
	}
}

func TestWhatIsUnlikeOthersTravelsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNetwork(), &stock{}
		n.serve(t, "a:1", s.ServeHTTP)
		n.start(t, strings.Replace(items, "ID", "query.id", 1), nil)
		c := n.client(t)
		for _, header := range [][]string{
			{"Authorization", "x"},
			{"Cookie", "a=b"},
			{"Range", "bytes=0-1"},
			{"If-None-Match", `"x"`},
			{"Accept-Language", "de"},
			{"Accept", "text/html"},
			{"X-Auth-Token", "x"},
			{"X-Api-Key", "x"},
			{"Origin", "http://shop.example"},
		} {
			if a := get(t, c, "http://gw:80/items?id=7", header...); a.body != `{"single":"/items?id=7"}` {
				t.Errorf("%v: %+v", header, a)
			}
		}
		for _, target := range []string{"/items", "/items?id=", "/items?id=1&id=2", "/items?id=1&full=1", "/items?id=1%2C2", "/items?id=" + strings.Repeat("9", 300)} {
			if a := get(t, c, "http://gw:80"+target); a.body != fmt.Sprintf(`{"single":%q}`, target) {
				t.Errorf("%s: %+v", target, a)
			}
		}
		if a := do(c, request(t, http.MethodPost, "http://gw:80/items?id=7", nil)); a.body != `{"single":"/items?id=7"}` {
			t.Error(a)
		}
	})
}

func TestAJointAnswerThatIsNotUnderstood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, s := newNetwork(), &stock{}
		n.serve(t, "a:1", s.ServeHTTP)
		g := n.start(t, strings.Replace(items, "ID", "query.id", 1), nil)
		c := n.client(t)
		for k, bad := range []string{"<html>", "[]", `{"data":{}}`, `{"data":null}`, `{"data":[1]}`, `{"data":[{"name":"x"}]}`, `{"data":[{"id":{}}]}`, "404"} {
			s.bad.Store(bad)
			if bad == "404" {
				s.code.Store(404)
			}
			if a := get(t, c, "http://gw:80/items?id=7"); a.status != 200 || a.body != `{"single":"/items?id=7"}` {
				t.Errorf("%s: %+v", bad, a)
			}
			if _, single := g.Joined("items"); single != uint64(k+1) {
				t.Error(bad, single, "single calls")
			}
		}
		s.take()
		s.code.Store(503) // to ask for each thing would only add to the load
		if a := get(t, c, "http://gw:80/items?id=7"); a.status != 503 || a.header.Get("X-Longpole-Error") != "batch_failed" || len(s.take()) != 1 {
			t.Errorf("%+v", a)
		}
	})
}

func TestARouteThatIsGoneLeavesNoBatcherBehind(t *testing.T) {
	n, s := newNetwork(), &stock{}
	n.serve(t, "a:1", s.ServeHTTP)
	file := strings.Replace(items, "ID", "query.id", 1)
	g := n.start(t, file, nil)
	for i := range 5 {
		if err := g.Reload(load(t, strings.Replace(file, "name: items", fmt.Sprint("name: items-", i), 1))); err != nil {
			t.Fatal(err)
		}
	}
	g.joints.mu.Lock()
	defer g.joints.mu.Unlock()
	if len(g.joints.all) != 1 || g.joints.all["items-4"] == nil {
		t.Errorf("%d batchers for one route", len(g.joints.all))
	}
}

func TestJointAnswersAreTakenApart(t *testing.T) {
	for _, tt := range []struct {
		body, member, key string
		want              string
	}{
		{`[{"id":1},{"id":"b"}]`, "", "id", `1={"id":1} b={"id":"b"}`},
		{`{"1":{"x":1},"2":null}`, "", "", `1={"x":1}`},
		{`{"data":{"1":5}}`, "data", "", `1=5`},
		{`{"data":[{"k":1.50}]}`, "data", "k", `1.50={"k":1.50}`},
		{`[]`, "", "id", ""},
	} {
		got, err := splitItems([]byte(tt.body), tt.member, tt.key)
		var all []string
		for _, id := range []string{"1", "2", "b", "1.50"} {
			if item, ok := got[id]; ok {
				all = append(all, id+"="+string(item))
			}
		}
		if text := strings.Join(all, " "); err != nil || text != tt.want || len(all) != len(got) {
			t.Errorf("%s: %s, %v", tt.body, got, err)
		}
	}
}

func FuzzSplitItems(f *testing.F) {
	f.Add(`{"data":[{"id":1}]}`, "data", "id")
	f.Add(`{"1":{}}`, "", "")
	f.Fuzz(func(t *testing.T, body, member, key string) {
		if _, err := splitItems([]byte(body), member, key); err != nil && !errors.Is(err, errUnread) {
			t.Fatal(err)
		}
	})
}

func TestAnIDCannotChangeTheHostOrPathOfAJointCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		seen := make(chan string, 10)
		n.serve(t, "a:1", func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Host + " " + r.RequestURI
			_, _ = io.WriteString(w, `{"data":[]}`)
		})
		n.start(t, strings.NewReplacer("id: ID", "id: query.id", "/items?ids={ids}", "/of/{segment.2}?ids={ids}").Replace(items), nil)
		got := get(t, n.client(t), "http://gw:80/items/mine?id=7%0Aevil%0A/items/theirs")
		if line := <-seen; !strings.HasPrefix(line, "gw:80 /of/mine?") {
			t.Errorf("the upstream was asked %q; %+v", line, got)
		}
	})
}
