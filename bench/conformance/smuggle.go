package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func smuggleSuite() suite {
	return suite{
		name:  "smuggling",
		title: "Request smuggling",
		about: fmt.Sprintf("%d mutations of HTTP/1.1 requests and %d of HTTP/2 requests that go on as HTTP/1.1, of the classes that have made two servers read one request differently. "+
			"*Refused*: nothing of it reached the origin. *Harmless*: every request that reached the origin is spelt so that no server can misread it, there are as many as the "+
			"subject answered its client (a refusal is an answer), and the next client gets its own answer. Anything else is *bad*. The last column: checks of defparam's smuggler.py that it calls OK, when it is at hand.", len(h1Payloads()), len(h2Payloads())),
		columns: []string{"HTTP/1.1: refused", "harmless", "bad", "HTTP/2: refused", "harmless", "bad", "smuggler.py"},
		run:     runSmuggle,
	}
}

// payload is one attempt. %ID% in its bytes becomes a mark of this attempt alone, markSize bytes long.
type payload struct {
	class, name string
	raw         string   // HTTP/1.1, as sent
	h2          *h2Frame // or HTTP/2
}

const markSize = 6

// verdict of one payload.
type verdict struct {
	kind string // refused, harmless, bad
	why  string
}

func runSmuggle(ctx context.Context, e *env, s *subject) (result, error) {
	origin, err := newStrictOrigin()
	if err != nil {
		return result{}, err
	}
	defer origin.listener.Close()
	front, err := s.start(ctx, e, plain, origin.listener.Addr().String())
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	r := result{}
	for _, over := range []struct {
		name, address string
		payloads      []payload
	}{{"HTTP/1.1", front.h1, h1Payloads()}, {"HTTP/2", front.h2c, h2Payloads()}} {
		count := map[string]int{}
		for i, p := range over.payloads {
			if ctx.Err() != nil {
				return result{}, ctx.Err()
			}
			v := attack(ctx, origin, front.h1, over.address, p, fmt.Sprintf("q%s%03dq", over.name[5:6], i))
			count[v.kind]++
			if e.verbose {
				fmt.Fprintf(os.Stderr, "  %-9s %-14s %-40s %s\n", v.kind, p.class, p.name, v.why)
			}
			if v.kind == "bad" {
				r.Failures = append(r.Failures, fmt.Sprintf("%s: %s, %s: %s", over.name, p.class, code(p.name), v.why))
				r.Missed = "smuggling"
			}
		}
		r.Cells = append(r.Cells, fmt.Sprint(count["refused"]), fmt.Sprint(count["harmless"]), fmt.Sprint(count["bad"]))
	}
	if e.smuggler == "" {
		r.Cells = append(r.Cells, "not at hand")
		return r, nil
	}
	good, all, bad, err := smuggler(ctx, e, front.h1)
	r.Cells = append(r.Cells, fmt.Sprintf("%d/%d", good, all))
	for _, line := range bad {
		r.Failures = append(r.Failures, "smuggler.py: "+code(line))
		r.Missed = "smuggler.py"
	}
	return r, err
}

// smuggler runs the program of that name and counts its lines.
func smuggler(ctx context.Context, e *env, address string) (good, all int, bad []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	log := filepath.Join(e.work, "smuggler.log")
	_ = os.Remove(log) // of the subject before
	cmd := exec.CommandContext(ctx, "python3", "smuggler.py", "-u", "http://"+address+"/", "--no-color", "-t", "3", "-l", log)
	cmd.Dir = e.smuggler
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, nil, fmt.Errorf("smuggler.py: %w: %s", err, lastLine(out))
	}
	data, err := os.ReadFile(log)
	if err != nil {
		return 0, 0, nil, err
	}
	for line := range strings.Lines(string(data)) {
		_, after, ok := strings.Cut(strings.TrimSpace(line), "]") // [mutation]   : OK (TECL: ...
		after, colon := strings.CutPrefix(strings.TrimSpace(after), ": ")
		ok = ok && colon
		switch {
		case !ok:
		case strings.HasPrefix(after, "OK"):
			good++
			all++
		default:
			all++
			bad = append(bad, strings.TrimSpace(line))
		}
	}
	return good, all, bad, nil
}

// attack sends one payload, then the request of a victim on a connection of its own, and judges what the origin saw.
func attack(ctx context.Context, origin *strictOrigin, h1, address string, p payload, id string) verdict {
	origin.take()
	var got answers
	if p.h2 != nil {
		got = sendH2(ctx, address, p.h2.marked(id))
	} else {
		got = sendH1(ctx, address, strings.ReplaceAll(p.raw, "%ID%", id))
	}
	victim := "/victim-" + id
	poisoned := ""
	if v := sendH1(ctx, h1, "GET "+victim+" HTTP/1.1\r\nHost: victim.example\r\nConnection: close\r\n\r\n"); len(v.seen) != 1 || v.seen[0] != victim {
		poisoned = fmt.Sprintf("the victim was answered %v %v", v.status, v.seen)
	}
	settle(origin)
	return judge(origin.take(), got, id, victim, poisoned)
}

// settle waits until nothing new came to the origin for a moment.
func settle(origin *strictOrigin) {
	for n, quiet := origin.peek(), 0; quiet < 2; {
		time.Sleep(15 * time.Millisecond)
		if m := origin.peek(); m != n {
			n, quiet = m, 0
		} else {
			quiet++
		}
	}
}

func judge(requests []*seen, got answers, id, victim, poisoned string) verdict {
	whole, cut, first := 0, 0, ""
	for _, r := range requests {
		switch {
		case len(r.flaws) > 0:
			return verdict{"bad", "forwarded " + strings.Join(r.flaws, ", ")}
		case r.target == victim:
		case !strings.Contains(r.target, id) && r.target != "*" && r.target != "/": // of OPTIONS *, and of an empty :path
			return verdict{"bad", fmt.Sprintf("the origin saw %q", r.target)}
		case r.whole:
			if whole++; whole == 1 {
				first, _, _ = strings.Cut(r.target, " ")
			}
		case !closesSoon(r.link):
			return verdict{"bad", "a request without its end left on an open connection"}
		default:
			cut++
		}
	}
	status := strings.Trim(fmt.Sprint(got.status), "[]")
	switch {
	case poisoned != "":
		return verdict{"bad", poisoned}
	case whole == 1 && (len(got.status) > 0 || got.closed) && !strings.Contains(first, "smuggled"):
		// Its own request, which the client was told of by the subject itself: by a refusal, or by an end.
	case whole > len(got.seen):
		return verdict{"bad", fmt.Sprintf("the origin saw %d requests, the client was answered %d", whole, len(got.seen))}
	case whole == 0 && cut == 0:
		return verdict{"refused", status + got.end}
	case whole == 0:
		return verdict{"harmless", "given up before its end, " + status + got.end}
	}
	return verdict{"harmless", fmt.Sprintf("%d seen, answered %s", whole, status+got.end)}
}

// closesSoon waits a little for the subject to give up its connection.
func closesSoon(l *link) bool {
	for range 40 {
		if l.isClosed() {
			return true
		}
		time.Sleep(25 * time.Millisecond)
	}
	return false
}

// answers is what a client got.
type answers struct {
	status []int
	seen   []string // X-Seen of each answer of the origin
	closed bool     // the subject ended the connection, or the one stream of HTTP/2
	end    string   // how it ended, when without an answer
}

const (
	firstAnswer = 1200 * time.Millisecond
	nextAnswer  = 250 * time.Millisecond
)

// sendH1 writes the bytes and reads every answer that comes.
func sendH1(ctx context.Context, address, raw string) answers {
	var a answers
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return answers{end: "no connection"}
	}
	defer c.Close()
	if _, err := c.Write([]byte(raw)); err != nil {
		a.end = "closed"
	}
	in := bufio.NewReader(c)
	method, _, _ := strings.Cut(strings.TrimLeft(raw, "\r\n"), " ")
	wait := firstAnswer
	for {
		_ = c.SetReadDeadline(time.Now().Add(wait)) // a socket that is open takes a deadline
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			ne, ok := errors.AsType[net.Error](err)
			a.closed = !ok || !ne.Timeout()
			switch {
			case len(a.status) > 0:
			case a.closed:
				a.end = " closed"
			default:
				a.end = " no answer"
			}
			return a
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode >= 200 {
			method = ""
		}
		a.status = append(a.status, resp.StatusCode)
		if s := resp.Header.Get("X-Seen"); s != "" {
			a.seen = append(a.seen, s)
		}
		if err != nil {
			return a
		}
		wait = nextAnswer
	}
}
