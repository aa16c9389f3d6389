package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// seen is one request as it reached the origin, read in the one way that no server can misread.
type seen struct {
	target string
	flaws  []string // why another server might read its bytes otherwise
	whole  bool     // its body came in full
	body   int      // bytes
	link   *link
}

// link is a connection of the subject to the origin.
type link struct {
	mu     sync.Mutex
	closed bool
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// strictOrigin is an HTTP/1.1 server that notes every request and whether it is spelt in the canonical way. It answers
// canonical requests with their own target in X-Seen, and ends the connection at the first other one.
type strictOrigin struct {
	listener net.Listener
	mu       sync.Mutex
	requests []*seen
}

func newStrictOrigin() (*strictOrigin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &strictOrigin{listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(c)
		}
	}()
	return o, nil
}

// take returns what came since the last call. Requests that still come in are in it, not whole.
func (o *strictOrigin) take() []*seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]*seen, 0, len(o.requests))
	for _, r := range o.requests {
		out = append(out, &seen{target: r.target, flaws: r.flaws, whole: r.whole, body: r.body, link: r.link})
	}
	o.requests = nil
	return out
}

func (o *strictOrigin) peek() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

func (o *strictOrigin) serve(c net.Conn) {
	l := &link{}
	defer func() {
		_ = c.Close()
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	}()
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		head, err := readHead(in)
		if len(head) == 0 {
			return
		}
		h := parseHead(head)
		r := &seen{target: h.target, flaws: h.flaws, link: l}
		if err != nil {
			r.flaws = append(r.flaws, "a head without an end")
		}
		o.mu.Lock()
		o.requests = append(o.requests, r)
		o.mu.Unlock()
		if len(r.flaws) > 0 {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		if h.expect {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		n, flaw, err := readBody(in, h)
		o.mu.Lock()
		r.body, r.whole = n, err == nil && flaw == ""
		if flaw != "" {
			r.flaws = append(r.flaws, flaw)
		}
		o.mu.Unlock()
		if !r.whole {
			return
		}
		body := "seen " + strconv.Itoa(n) + "\n"
		if h.method == "HEAD" {
			body = ""
		}
		status := "200 OK"
		if h.method == "CONNECT" {
			status = "405 Method Not Allowed" // no tunnels here
		}
		answer := fmt.Sprintf("HTTP/1.1 "+status+"\r\nX-Seen: %s\r\nContent-Length: %d\r\n\r\n%s", h.target, len(body), body)
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// readHead reads up to the first empty line, whatever ends its lines.
func readHead(in *bufio.Reader) ([]byte, error) {
	var head []byte
	for len(head) < 256<<10 {
		line, err := in.ReadBytes('\n')
		head = append(head, line...)
		if err != nil {
			return head, err
		}
		if s := strings.TrimRight(string(line), "\r\n"); s == "" {
			return head, nil
		}
	}
	return head, errors.New("too long")
}

// head is what the first lines of a request say.
type head struct {
	method, target string
	flaws          []string
	length         int64
	chunked        bool
	expect         bool
}

func (h *head) flaw(format string, args ...any) {
	h.flaws = append(h.flaws, fmt.Sprintf(format, args...))
}

// parseHead finds whatever RFC 9112 forbids, and whatever two servers have been known to read differently.
func parseHead(data []byte) head {
	var h head
	for i, b := range data {
		switch {
		case b == '\n' && (i == 0 || data[i-1] != '\r'):
			h.flaw("bare LF")
		case b == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			h.flaw("bare CR")
		case b < ' ' && b != '\r' && b != '\n' && b != '\t' || b == 0x7f:
			h.flaw("control character %#02x", b)
		}
	}
	lines := strings.Split(strings.TrimRight(string(data), "\r\n"), "\r\n")
	parts := strings.Split(lines[0], " ")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" || !isToken(parts[0]) {
		h.flaw("request line %q", lines[0])
	}
	h.method = parts[0]
	if len(parts) > 1 {
		h.target = parts[1]
	}
	lengths, codings, hosts := 0, 0, 0
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			h.flaw("header line %q", line)
			continue
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-length":
			lengths++
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil || !isDigits(value) {
				h.flaw("Content-Length %q", value)
			}
			h.length = int64(n)
		case "transfer-encoding":
			codings++
			h.chunked = true
			if !strings.EqualFold(value, "chunked") {
				h.flaw("Transfer-Encoding %q", value)
			}
		case "host":
			hosts++
			if strings.ContainsAny(value, " \t,/@\\") {
				h.flaw("Host %q", value)
			}
		case "upgrade":
			if strings.Contains(strings.ToLower(value), "h2c") {
				h.flaw("Upgrade %q", value)
			}
		case "expect":
			h.expect = strings.EqualFold(value, "100-continue")
		}
	}
	if lengths > 1 || codings > 1 || lengths+codings > 1 {
		h.flaw("%d Content-Length and %d Transfer-Encoding", lengths, codings)
	}
	if hosts != 1 && len(parts) == 3 && parts[2] == "HTTP/1.1" {
		h.flaw("%d Host", hosts)
	}
	return h
}

// readBody returns how many bytes the body has; a flaw is a spelling that servers read differently.
func readBody(in *bufio.Reader, h head) (n int, flaw string, err error) {
	if !h.chunked {
		m, err := io.CopyN(io.Discard, in, h.length)
		return int(m), "", err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return n, "", err
		}
		size, extension, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ";")
		if !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(extension, "\r\n") {
			return n, fmt.Sprintf("chunk line %q", line), nil
		}
		k, err := strconv.ParseUint(size, 16, 31)
		if err != nil || strings.Trim(size, "0123456789abcdefABCDEF") != "" {
			return n, fmt.Sprintf("chunk size %q", size), nil
		}
		if k == 0 {
			break
		}
		data := make([]byte, k+2)
		if _, err := io.ReadFull(in, data); err != nil {
			return n, "", err
		}
		if !bytes.HasSuffix(data, []byte("\r\n")) {
			return n, "a chunk without its end", nil
		}
		n += int(k)
	}
	trailer, err := readHead(in)
	if err != nil {
		return n, "", err
	}
	for line := range strings.SplitSeq(strings.TrimRight(string(trailer), "\r\n"), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name = strings.ToLower(name); {
		case line == "":
		case !isToken(name):
			return n, fmt.Sprintf("trailer %q", line), nil
		case name == "content-length" || name == "transfer-encoding" || name == "host":
			return n, "trailer " + name, nil
		}
	}
	return n, "", nil
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isToken(s string) bool {
	const symbols = "!#$%&'*+-.^_`|~"
	other := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(symbols, r)
	}
	return s != "" && !strings.ContainsFunc(s, other)
}
