package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const h2specGoal = 143

func h2specSuite() suite {
	return suite{
		name:    "h2spec",
		title:   "h2spec: HTTP/2 and HPACK",
		about:   "All sections of h2spec, over prior-knowledge HTTP/2 in the clear and over TLS, in front of an HTTP/1.1 server. Goal: 143 of 145.",
		columns: []string{"in the clear", "over TLS"},
		run:     runH2spec,
	}
}

func runH2spec(ctx context.Context, e *env, s *subject) (result, error) {
	origin, err := simpleServer()
	if err != nil {
		return result{}, err
	}
	defer origin.Close()
	front, err := s.start(ctx, e, plain, origin.address)
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	r := result{}
	for _, over := range []struct {
		name, address string
		flags         []string
	}{{"in the clear", front.h2c, nil}, {"over TLS", front.tls, []string{"--tls", "--insecure"}}} {
		if over.address == "" {
			r.Cells = append(r.Cells, "has no TLS")
			continue
		}
		passed, all, failed, err := h2spec(ctx, e, over.address, over.flags)
		if err != nil {
			return result{}, err
		}
		r.Cells = append(r.Cells, fmt.Sprintf("%d/%d", passed, all))
		for _, f := range failed {
			r.Failures = append(r.Failures, over.name+": "+f)
		}
		if passed < h2specGoal {
			r.Missed = "h2spec " + over.name
		}
	}
	return r, nil
}

// h2spec runs the program once and reads its report.
func h2spec(ctx context.Context, e *env, address string, flags []string) (passed, all int, failed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, 0, nil, err
	}
	report := filepath.Join(e.work, "h2spec.xml")
	_ = os.Remove(report) // of the run before
	args := append([]string{"--host", host, "--port", port, "--timeout", "2", "--junit-report", report}, flags...)
	out, runErr := exec.CommandContext(ctx, filepath.Join(e.tools, "h2spec"), args...).CombinedOutput()
	data, err := os.ReadFile(report)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("h2spec: %w: %s", runErr, lastLine(out))
	}
	var suites struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string  `xml:"classname,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
				Skipped *string `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	printable := func(r rune) rune { // an answer's raw bytes stand in the report
		if r < ' ' && r != '\n' && r != '\t' || r == utf8.RuneError {
			return '?'
		}
		return r
	}
	if err := xml.Unmarshal(bytes.Map(printable, data), &suites); err != nil {
		return 0, 0, nil, err
	}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			all++
			switch {
			case c.Failure != nil:
				failed = append(failed, code(s.Package)+" "+c.Name+": "+oneLine(*c.Failure))
			case c.Error != nil:
				failed = append(failed, code(s.Package)+" "+c.Name+": "+oneLine(*c.Error))
			case c.Skipped != nil:
				failed = append(failed, code(s.Package)+" "+c.Name+" (skipped by h2spec)")
			default:
				passed++
			}
		}
	}
	return passed, all, failed, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// originServer is an HTTP/1.1 server that the subjects forward to.
type originServer struct {
	*http.Server
	address string
}

// simpleServer answers with as many bytes as ?bytes= says, 1024 by default, after it read the request's body.
func simpleServer() (*originServer, error) {
	return serveOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		n, err := strconv.Atoi(r.URL.Query().Get("bytes"))
		if err != nil || n < 0 || n > 64<<20 {
			n = 1024
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		for piece := []byte(strings.Repeat("x", 32<<10)); n > 0; n -= len(piece) {
			if _, err := w.Write(piece[:min(n, len(piece))]); err != nil {
				return
			}
		}
	}))
}

func serveOrigin(h http.Handler) (*originServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &originServer{&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}, l.Addr().String()}
	go func() { _ = s.Serve(l) }() // ends with Close
	return s, nil
}
