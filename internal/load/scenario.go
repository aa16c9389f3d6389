package load

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/setting"
)

// Scenario is the traffic of a run and what is expected of the answers: a file, or the flags of `longpole load`.
type Scenario struct {
	Targets  []Call        `yaml:"targets"`  // up to 1000; none only with Replay
	Replay   *Recorded     `yaml:"replay"`   // a recording instead of targets
	Arrivals Arrivals      `yaml:"arrivals"` // default poisson
	Burst    Burst         `yaml:"burst"`    // of bursty arrivals
	Rate     float64       `yaml:"rate"`     // calls a second, all targets together, at the beginning; default 10, and 0 with stages
	Stages   []Stage       `yaml:"stages"`   // how the rate goes on
	Duration time.Duration `yaml:"duration"` // default that of the stages, or 10s; of a replay its own length; up to 24h
	Warmup   time.Duration `yaml:"warmup"`   // sent before, at the rate of the beginning, and not measured; up to 1h
	Seed     int           `yaml:"seed"`     // equal seeds send equal traffic at equal times

	Protocol    Protocol      `yaml:"protocol"`      // default http1, and h2c or http2 for gRPC
	Connections int           `yaml:"connections"`   // for each server; 0 = as many as there are calls in flight
	Streams     int           `yaml:"streams"`       // calls at once on a connection of HTTP/2; default 100
	KeepAlive   *bool         `yaml:"keep_alive"`    // default true; false = a connection for each call
	Timeout     time.Duration `yaml:"timeout"`       // of one call, from the moment of sending; default 10s
	MaxInFlight int           `yaml:"max_in_flight"` // calls begun and not ended, for each target; default two seconds of calls, 1024 up to 16384
	TLS         TLS           `yaml:"tls"`

	Headers    map[string]string `yaml:"headers"`    // of every call; templates
	Thresholds []string          `yaml:"thresholds"` // p99<250ms, errors<1%; see ParseThreshold
	MaxLag     time.Duration     `yaml:"max_lag"`    // of the generator, p99; above it the run is invalid; default 1ms, or 5 % of the median response time if that is more
	MaxCPU     float64           `yaml:"max_cpu"`    // of the machine and of the generator's share of it; above it the run is invalid; default 95%; 100% = not checked
}

// Call is one target of a scenario.
type Call struct {
	Name         string            `yaml:"name"`          // of its results; default method and URL
	URL          string            `yaml:"url"`           // template; http, https, or grpc and grpcs with the method as path
	Method       string            `yaml:"method"`        // default GET, and POST with a body
	Weight       float64           `yaml:"weight"`        // share of the rate, in proportion to the others; default 1
	Headers      map[string]string `yaml:"headers"`       // beside those of the scenario; templates
	Body         string            `yaml:"body"`          // template
	BodyFile     string            `yaml:"body_file"`     // sent as it is; of a gRPC call the encoded message
	BodyTemplate string            `yaml:"body_template"` // file with a template
	Service      string            `yaml:"service"`       // of a gRPC URL without a method: the service whose health is asked for; default the server's
}

// Recorded is a recording to send again.
type Recorded struct {
	File     string  `yaml:"file"`
	To       string  `yaml:"to"`        // scheme, host, and a path that is put before the call's
	Speed    float64 `yaml:"speed"`     // 2 = in half the time; default 1
	Loop     bool    `yaml:"loop"`      // begin again at its end
	Unsafe   bool    `yaml:"unsafe"`    // also calls that change something
	KeepHost bool    `yaml:"keep_host"` // the Host field is the recorded one
}

// The bounds of a scenario.
const (
	maxTargets  = 1000
	maxBody     = 16 << 20
	maxDuration = 24 * time.Hour
)

// ReadScenario decodes a file and finds every fault in it; file names within it count from its folder.
func ReadScenario(file string, data []byte) (Scenario, error) {
	var s Scenario
	err := conf.Load(file, data, &s, func(s *Scenario) error {
		s.from(filepath.Dir(file))
		return s.WithDefaults().Validate()
	})
	return s, err
}

// from makes the names of files relative to dir.
func (s *Scenario) from(dir string) {
	at := func(name *string) {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(dir, *name)
		}
	}
	for i := range s.Targets {
		at(&s.Targets[i].BodyFile)
		at(&s.Targets[i].BodyTemplate)
	}
	if s.Replay != nil {
		at(&s.Replay.File)
	}
	at(&s.TLS.CAFile)
	at(&s.TLS.CertFile)
	at(&s.TLS.KeyFile)
}

// WithDefaults fills what is zero.
func (s Scenario) WithDefaults() Scenario {
	if s.Arrivals == "" {
		s.Arrivals = Poisson
	}
	if s.Replay == nil && s.Rate == 0 && len(s.Stages) == 0 {
		s.Rate = 10
	}
	if s.Duration == 0 && s.Replay == nil {
		if s.Duration = s.ramp(); s.Duration == 0 {
			s.Duration = 10 * time.Second
		}
	}
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
	}
	if s.MaxInFlight == 0 {
		s.MaxInFlight = min(max(int(2*s.Peak()), 1024), 16384)
	}
	if s.MaxCPU == 0 {
		s.MaxCPU = 0.95
	}
	s.Targets = append([]Call(nil), s.Targets...)
	for i := range s.Targets {
		s.Targets[i] = s.Targets[i].withDefaults()
	}
	if s.Protocol == "" {
		s.Protocol = s.protocol()
	}
	return s
}

func (c Call) withDefaults() Call {
	if c.Method == "" {
		c.Method = http.MethodGet
		if c.grpc() || c.Body != "" || c.BodyFile != "" || c.BodyTemplate != "" {
			c.Method = http.MethodPost
		}
	}
	if c.Weight == 0 {
		c.Weight = 1
	}
	if c.Name == "" {
		c.Name = c.Method + " " + c.URL
		if c.grpc() {
			c.Name = c.URL
		}
	}
	return c
}

func (c Call) grpc() bool {
	return strings.HasPrefix(c.URL, "grpc://") || strings.HasPrefix(c.URL, "grpcs://")
}

// protocol is what the targets need.
func (s Scenario) protocol() Protocol {
	for _, c := range s.Targets {
		switch {
		case strings.HasPrefix(c.URL, "grpcs://"):
			return HTTP2
		case c.grpc():
			return H2C
		}
	}
	return HTTP1
}

// ramp is how long the stages take.
func (s Scenario) ramp() (sum time.Duration) {
	for _, stage := range s.Stages {
		sum += stage.Over
	}
	return sum
}

// Peak is the highest rate that is asked for.
func (s Scenario) Peak() float64 {
	peak := s.Rate
	for _, stage := range s.Stages {
		peak = max(peak, stage.Rate)
	}
	return peak
}

// Validate returns every fault of s, which has its defaults, joined; each is a *setting.Error.
func (s Scenario) Validate() error {
	var f setting.Faults
	f.Check((len(s.Targets) > 0) != (s.Replay != nil), "targets", len(s.Targets), "at least one target, or a replay")
	f.Check(len(s.Targets) <= maxTargets, "targets", len(s.Targets), "at most 1000 targets")
	Plan{Arrivals: s.Arrivals, PerSecond: s.Rate, Stages: s.Stages, Burst: s.Burst}.checkArrivals(&f)
	f.Check(s.Replay != nil || s.Peak() > 0, "rate", s.Rate, "more than 0, or stages that lead there")
	f.Check(s.Duration >= 0 && s.Duration <= maxDuration && (s.Duration > 0 || s.Replay != nil), "duration", s.Duration, "more than 0, up to 24h")
	f.Check(s.Duration >= s.ramp(), "duration", s.Duration, "at least that of the stages, "+s.ramp().String())
	f.Check(s.Warmup >= 0 && s.Warmup <= time.Hour, "warmup", s.Warmup, "0 up to 1h")
	f.Check(s.Warmup == 0 || s.Rate > 0, "warmup", s.Warmup, "0 when the rate begins at 0, or with a replay")
	f.Check(s.Timeout > 0 && s.Timeout <= time.Hour, "timeout", s.Timeout, "more than 0, up to 1h")
	f.Check(s.MaxInFlight > 0 && s.MaxInFlight <= 65536, "max_in_flight", s.MaxInFlight, "1 up to 65536")
	f.Check(s.MaxLag >= 0, "max_lag", s.MaxLag, "a duration that is not negative")
	f.Check(s.MaxCPU > 0 && s.MaxCPU <= 1, "max_cpu", s.MaxCPU, "more than 0, up to 100%")
	f.Check(s.Seed >= 0, "seed", s.Seed, "a number that is not negative")
	f.Within("", s.transport(nil).Validate())
	names := make(map[string]bool)
	for i, c := range s.Targets {
		at := fmt.Sprintf("targets[%d]", i)
		f.Within(at, c.validate(s.Protocol))
		f.Check(!names[c.Name], at+".name", c.Name, "a name that no other target has")
		names[c.Name] = true
	}
	checkHeaders(&f, "headers", s.Headers)
	for i, text := range s.Thresholds {
		t, err := ParseThreshold(text)
		f.Check(err == nil, fmt.Sprintf("thresholds[%d]", i), text, "a metric, < or >, and a value: p99<250ms")
		f.Check(err != nil || t.Target == "" || names[t.Target] || s.Replay != nil, fmt.Sprintf("thresholds[%d]", i), t.Target, "the name of a target")
	}
	if r := s.Replay; r != nil {
		f.Check(r.File != "", "replay.file", r.File, "the name of a recording")
		f.Within("replay", Replay{Open: File(r.File), Base: r.To, Speed: r.Speed}.Validate())
		f.Check(s.Rate == 0 && len(s.Stages) == 0, "rate", s.Rate, "none with a replay, whose speed is replay.speed")
	}
	return f.Err()
}

func (c Call) validate(p Protocol) error {
	var f setting.Faults
	t, err := ParseTemplate(c.URL)
	f.Check(err == nil, "url", c.URL, "a URL with placeholders that are known")
	if err == nil {
		u, err := url.Parse(t.Text(rand.New(rand.NewPCG(1, 1)), 0))
		known := err == nil && (u.Scheme == "http" || u.Scheme == "https" || c.grpc())
		f.Check(known && u.Host != "", "url", c.URL, "a URL such as http://127.0.0.1:8080/ or grpc://127.0.0.1:9000")
		if known {
			secure := u.Scheme == "https" || u.Scheme == "grpcs"
			f.Check(!c.grpc() || p != HTTP1, "url", c.URL, "protocol h2c or http2, which gRPC needs")
			f.Check(p != HTTP2 || secure, "url", c.URL, "https or grpcs, which protocol http2 needs; in clear text it is h2c")
			f.Check(p != H2C || !secure, "url", c.URL, "http or grpc, which protocol h2c needs; over TLS it is http2")
		}
	}
	f.Check(isToken(c.Method), "method", c.Method, "a method such as GET")
	f.Check(!c.grpc() || c.Method == http.MethodPost, "method", c.Method, "POST, or none, with gRPC")
	f.Check(c.Weight > 0 && c.Weight <= 1e6, "weight", c.Weight, "more than 0, up to 1000000")
	f.Check(len(c.Name) <= 256, "name", c.Name, "at most 256 bytes")
	bodies := 0
	for _, b := range []string{c.Body, c.BodyFile, c.BodyTemplate} {
		if b != "" {
			bodies++
		}
	}
	f.Check(bodies <= 1, "body", c.Body, "one of body, body_file and body_template")
	if _, err := ParseTemplate(c.Body); err != nil {
		f.Check(false, "body", c.Body, "a text with placeholders that are known")
	}
	checkHeaders(&f, "headers", c.Headers)
	return f.Err()
}

func checkHeaders(f *setting.Faults, at string, headers map[string]string) {
	for name, value := range headers {
		_, err := ParseTemplate(value)
		f.Check(isToken(name), at, name, "the name of a header field")
		f.Check(err == nil && !strings.ContainsAny(value, "\r\n\x00"), at+"."+name, value, "one line, with placeholders that are known")
	}
}

// isToken tells whether s can be a method or the name of a field (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// transport is how the scenario's calls travel.
func (s Scenario) transport(o *RunOptions) TransportConfig {
	c := TransportConfig{
		Protocol: s.Protocol, Connections: s.Connections, Streams: s.Streams, NoKeepAlive: s.KeepAlive != nil && !*s.KeepAlive,
		MaxIdle: s.MaxInFlight, TLS: s.TLS,
	}
	if o != nil {
		c.Dial = o.Dial
	}
	return c
}

// plan compiles the scenario; it reads the files of the bodies.
func (s Scenario) plan() (Plan, error) {
	p := Plan{
		Arrivals: s.Arrivals, Seed: uint64(s.Seed), MaxInFlight: s.MaxInFlight, Timeout: s.Timeout, Drain: s.Timeout,
		PerSecond: s.Rate, Burst: s.Burst, Concurrent: s.transport(nil).Concurrent(),
	}
	if len(s.Stages) > 0 {
		p.Stages = append([]Stage{{Rate: s.Rate, Over: s.Warmup}}, s.Stages...)
	}
	if r := s.Replay; r != nil {
		p.Targets = []Target{{Name: "replay", Replay: &Replay{
			Open: File(r.File), Base: r.To, Speed: r.Speed, Loop: r.Loop, Unsafe: r.Unsafe, KeepHost: r.KeepHost,
		}}}
		return p, nil
	}
	for _, c := range s.Targets {
		request, err := c.compile(s.Headers)
		if err != nil {
			return p, err
		}
		p.Targets = append(p.Targets, Target{Name: c.Name, Method: c.Method, Weight: c.Weight, Request: request, GRPC: c.grpc()})
	}
	return p, nil
}

// field is one compiled header field.
type field struct {
	name  string
	value *Template
}

// fieldsOf compiles header fields; those of a later map replace those of an earlier one.
func fieldsOf(maps ...map[string]string) (fields []field, err error) {
	merged := map[string]string{"User-Agent": "longpole-load"}
	for _, headers := range maps {
		for name, value := range headers {
			merged[http.CanonicalHeaderKey(name)] = value
		}
	}
	for name, value := range merged {
		t, err := ParseTemplate(value)
		if err != nil {
			return nil, err
		}
		fields = append(fields, field{name, t})
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) }) // values are drawn in this order
	return fields, nil
}

// compile gives the function that makes the calls of c.
func (c Call) compile(common map[string]string) (func(*rand.Rand) (*http.Request, error), error) {
	target, fixed, err := c.address()
	if err != nil {
		return nil, err
	}
	body, whole, err := c.content()
	if err != nil {
		return nil, err
	}
	fields, err := fieldsOf(common, c.Headers)
	if err != nil {
		return nil, err
	}
	seq := uint64(0)
	return func(r *rand.Rand) (*http.Request, error) {
		n := seq
		seq++
		u := fixed
		if u == nil {
			var err error
			if u, err = parseTarget(target.Text(r, n)); err != nil {
				return nil, err
			}
		}
		request := &http.Request{
			Method: c.Method, URL: u, Host: u.Host, Header: make(http.Header, len(fields)+2), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}
		for _, f := range fields {
			value := f.value.Text(r, n)
			if f.name == "Host" {
				request.Host = value
				continue
			}
			request.Header[f.name] = []string{value}
		}
		content := whole
		if body != nil {
			content = []byte(body.Text(r, n))
		}
		if c.grpc() {
			content = frame(content)
			request.Header["Content-Type"], request.Header["Te"] = []string{"application/grpc"}, []string{"trailers"}
		}
		if len(content) > 0 {
			request.ContentLength = int64(len(content))
			request.Body = io.NopCloser(bytes.NewReader(content))
			request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
		}
		return request, nil
	}, nil
}

// address is the URL: fixed when it has no placeholder.
func (c Call) address() (t *Template, fixed *url.URL, err error) {
	text := c.URL
	if c.grpc() {
		text = "http" + strings.TrimPrefix(text, "grpc")
		if u, err := url.Parse(text); err == nil && (u.Path == "" || u.Path == "/") {
			text = strings.TrimSuffix(text, "/") + healthPath
		}
	}
	if t, err = ParseTemplate(text); err != nil || !t.Fixed() {
		return t, nil, err
	}
	fixed, err = parseTarget(text)
	return t, fixed, err
}

func parseTarget(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	u.Fragment = ""
	return u, nil
}

// content is the body: a template, or what is sent as it is.
func (c Call) content() (t *Template, whole []byte, err error) {
	name := c.BodyFile + c.BodyTemplate // one of them at most
	switch {
	case name != "":
		info, err := os.Stat(name)
		if err != nil {
			return nil, nil, fmt.Errorf("load: body: %w", err)
		}
		if info.Size() > maxBody {
			return nil, nil, fmt.Errorf("load: body: %s is larger than 16 MiB", name)
		}
		if whole, err = os.ReadFile(name); err != nil {
			return nil, nil, fmt.Errorf("load: body: %w", err)
		}
		if c.BodyTemplate == "" {
			return nil, whole, nil
		}
		t, err = ParseTemplate(string(whole))
		return t, nil, err
	case c.grpc() && c.Body == "":
		return nil, healthRequest(c.Service), nil // no message for other methods, since service is empty
	case c.Body == "":
		return nil, nil, nil
	}
	t, err = ParseTemplate(c.Body)
	return t, nil, err
}
