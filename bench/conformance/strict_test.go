package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestOnlyCanonicalHeadsHaveNoFlaw(t *testing.T) {
	const line = "GET /a HTTP/1.1\r\nHost: x\r\n"
	for _, good := range []string{
		line + "\r\n",
		line + "Content-Length: 5\r\n\r\n",
		line + "transfer-encoding: Chunked\r\n\r\n",
		line + "X:\tvalue with \xe9\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if h := parseHead([]byte(good)); len(h.flaws) > 0 {
			t.Errorf("%q: %v, want none", good, h.flaws)
		}
	}
	for _, bad := range []string{
		"GET /a HTTP/1.1\r\n\r\n",
		line + "Host: x\r\n\r\n",
		line + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
		line + "Content-Length: +5\r\n\r\n",
		line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		line + "Transfer-Encoding: identity\r\n\r\n",
		line + "Transfer-Encoding : chunked\r\n\r\n",
		line + " folded\r\n\r\n",
		line + "X: a\rb\r\n\r\n",
		line + "X: a\nY: b\r\n\r\n",
		line + "X: a\x00\r\n\r\n",
		line + "Upgrade: h2c\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\nHost: x\n\n",
	} {
		if h := parseHead([]byte(bad)); len(h.flaws) == 0 {
			t.Errorf("%q: no flaw", bad)
		}
	}
}

func TestOnlyCanonicalChunksHaveNoFlaw(t *testing.T) {
	read := func(body string) (int, string, error) {
		return readBody(bufio.NewReader(strings.NewReader(body)), head{chunked: true})
	}
	for _, good := range []string{"5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"} {
		if n, flaw, err := read(good); n != 5 || flaw != "" || err != nil {
			t.Errorf("%q: %d bytes, flaw %q, %v", good, n, flaw, err)
		}
	}
	for _, bad := range []string{"5\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n"} {
		if _, flaw, err := read(bad); flaw == "" && err == nil {
			t.Errorf("%q: no flaw", bad)
		}
	}
}

func TestJudge(t *testing.T) {
	const id, victim = "q1", "/victim-q1"
	gone := &link{closed: true}
	own := &seen{target: "/a-q1", whole: true}
	smuggled := &seen{target: "/smuggled-q1", whole: true}
	for name, c := range map[string]struct {
		requests []*seen
		got      answers
		poisoned string
		want     string
	}{
		"nothing came":                    {nil, answers{status: []int{400}}, "", "refused"},
		"its own and answered":            {[]*seen{own}, answers{status: []int{200}, seen: []string{"/a-q1"}}, "", "harmless"},
		"two, both answered":              {[]*seen{own, smuggled}, answers{status: []int{200, 200}, seen: []string{"/a-q1", "/smuggled-q1"}}, "", "harmless"},
		"two, one answered":               {[]*seen{own, smuggled}, answers{status: []int{200}, seen: []string{"/a-q1"}}, "", "bad"},
		"the smuggled one and an end":     {[]*seen{smuggled}, answers{closed: true}, "", "bad"},
		"its own and an end":              {[]*seen{own}, answers{closed: true}, "", "harmless"},
		"its own, refused to the client":  {[]*seen{own}, answers{status: []int{503}}, "", "harmless"},
		"its own, no answer, no end":      {[]*seen{own}, answers{}, "", "bad"},
		"the smuggled one, refused":       {[]*seen{smuggled}, answers{status: []int{503}}, "", "bad"},
		"two, refused once":               {[]*seen{own, smuggled}, answers{status: []int{503}}, "", "bad"},
		"an empty path":                   {[]*seen{{target: "/", whole: true}}, answers{status: []int{200}, seen: []string{"/"}}, "", "harmless"},
		"cut off":                         {[]*seen{{target: "/a-q1", link: gone}}, answers{status: []int{400}}, "", "harmless"},
		"a stranger":                      {[]*seen{{target: "/other", whole: true}}, answers{status: []int{200}, seen: []string{"/other"}}, "", "bad"},
		"flawed":                          {[]*seen{{target: "/a-q1", flaws: []string{"bare LF"}}}, answers{status: []int{400}}, "", "bad"},
		"the victim got another's":        {[]*seen{own}, answers{status: []int{200}, seen: []string{"/a-q1"}}, "another's", "bad"},
		"the victim's own does not count": {[]*seen{{target: victim, whole: true}}, answers{status: []int{400}}, "", "refused"},
	} {
		if v := judge(c.requests, c.got, id, victim, c.poisoned); v.kind != c.want {
			t.Errorf("%s: %s (%s), want %s", name, v.kind, v.why, c.want)
		}
	}
}

func TestEveryPayloadIsMarkedAndNamedOnce(t *testing.T) {
	names := map[string]bool{}
	for _, p := range append(h1Payloads(), h2Payloads()...) {
		kind := "h1 "
		text := p.raw
		if p.h2 != nil {
			kind = "h2 "
			for _, kv := range p.h2.fields {
				text += kv[0] + kv[1]
			}
		}
		key := kind + p.class + " " + p.name
		if names[key] {
			t.Errorf("%s: twice", key)
		}
		names[key] = true
		unmarked := p.name == "HTTP/2 preface" || p.class == ":path" || p.class == ":method" || p.name == "no :path"
		if !strings.Contains(text, "%ID%") && !unmarked {
			t.Errorf("%s: has no mark", key)
		}
	}
	if len(names) < 150 {
		t.Errorf("%d payloads", len(names))
	}
}
