package load_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/longpole/longpole/internal/load"
)

// short is a run over real sockets whose figures nobody looks at.
func short(t *testing.T, s load.Scenario, o load.RunOptions) load.Report {
	t.Helper()
	s.Arrivals, s.Rate, s.Duration, s.MaxLag, s.MaxCPU = load.Uniform, 200, 100*time.Millisecond, time.Hour, 1
	r, err := load.Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProtocolIsTheOneAskedFor(t *testing.T) {
	var major atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { major.Store(int64(r.ProtoMajor)) }))
	server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		tls   load.TLS
		proto load.Protocol
		major int64
		fault string
	}{
		{"HTTP/1.1 over TLS", load.TLS{CAFile: ca}, load.HTTP1, 1, ""},
		{"HTTP/2 over TLS", load.TLS{CAFile: ca}, load.HTTP2, 2, ""},
		{"not verified", load.TLS{Insecure: true}, load.HTTP1, 1, ""},
		{"unknown authority", load.TLS{}, load.HTTP2, 0, "TLS"},
		{"another name", load.TLS{CAFile: ca, ServerName: "other.test"}, load.HTTP1, 0, "TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := short(t, load.Scenario{Targets: []load.Call{{URL: server.URL}}, Protocol: c.proto, TLS: c.tls}, load.RunOptions{})
			if c.fault != "" {
				if r.Total.Faults[c.fault] != 20 {
					t.Errorf("errors are %v; want 20 of %s", r.Total.Faults, c.fault)
				}
				return
			}
			if r.Total.Codes["200"] != 20 || major.Load() != c.major {
				t.Errorf("answers %v, errors %v over HTTP/%d; want 20 of 200 over HTTP/%d", r.Total.Codes, r.Total.Faults, major.Load(), c.major)
			}
		})
	}
	if _, err := load.Run(t.Context(), load.Scenario{Targets: []load.Call{{URL: server.URL}}, TLS: load.TLS{CAFile: "nowhere.pem"}}, load.RunOptions{}); err == nil {
		t.Error("authorities that are not there are accepted")
	}
}

// raw takes messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "raw" }

func TestUnaryCallsAreUnderstoodByGRPC(t *testing.T) {
	p := bufconn.Listen(1 << 20) // both sides of HTTP/2 begin by writing, which net.Pipe cannot bear
	server := grpc.NewServer()
	checks := health.NewServer()
	checks.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
	checks.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	go func() { _ = server.Serve(p) }()
	defer server.Stop()

	echo := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		var message []byte
		if err := s.RecvMsg(&message); err != nil {
			return err
		}
		if strings.Contains(string(message), "fail") {
			return status.Error(codes.ResourceExhausted, "full")
		}
		return s.SendMsg(&message)
	}))
	q := bufconn.Listen(1 << 20)
	go func() { _ = echo.Serve(q) }()
	defer echo.Stop()

	for _, c := range []struct {
		name   string
		to     *bufconn.Listener
		call   load.Call
		code   string
		failed bool
	}{
		{"health", p, load.Call{URL: "grpc://a.test:1"}, "OK", false},
		{"health of a service", p, load.Call{URL: "grpc://a.test:1/", Service: "up"}, "OK", false},
		{"of one that is down", p, load.Call{URL: "grpc://a.test:1", Service: "down"}, "UNAVAILABLE", true},
		{"of one that is not known", p, load.Call{URL: "grpc://a.test:1", Service: "nobody"}, "NOT_FOUND", true},
		{"no such method", p, load.Call{URL: "grpc://a.test:1/no.Such/Method", Body: "x"}, "UNIMPLEMENTED", true},
		{"raw", q, load.Call{URL: "grpc://a.test:1/any.Service/Method", Body: "hello {{seq}}"}, "OK", false},
		{"raw, refused", q, load.Call{URL: "grpc://a.test:1/any.Service/Method", Body: "fail"}, "RESOURCE_EXHAUSTED", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := short(t, load.Scenario{Targets: []load.Call{c.call}}, load.RunOptions{Dial: func(string, string) (net.Conn, error) { return c.to.Dial() }})
			if r.Total.Codes[c.code] != 20 || (r.Total.Failed == 20) != c.failed || r.Total.Failed%20 != 0 {
				t.Errorf("answers %v, errors %v, %d failed; want 20 of %s", r.Total.Codes, r.Total.Faults, r.Total.Failed, c.code)
			}
		})
	}
}

func TestAnswerThatIsNotOfGRPCIsAnError(t *testing.T) {
	for _, c := range []struct {
		name, fault, code string
		answer            http.HandlerFunc
	}{
		{"no status", "protocol", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "\x00\x00\x00\x00\x01x") }},
		{"of a proxy", "", "502", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }},
		{"cut off", "connection closed", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "\x00\x00\x00\x00\x09x") }},
		{"OK and nothing", "protocol", "", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "0") }},
		{"two messages", "protocol", "", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		}},
		{"code unheard of", "", "UNKNOWN_CODE", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "99") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPipes()
			defer serve(p, c.answer)()
			r := short(t, load.Scenario{Targets: []load.Call{{URL: "grpc://a.test:1/a.B/C"}}}, load.RunOptions{Dial: p.dial})
			if r.Total.Failed != 20 || r.Total.Faults[c.fault] != 20 && c.fault != "" || r.Total.Codes[c.code] != 20 && c.code != "" {
				t.Errorf("answers %v, errors %v, %d failed; want 20 of %s%s", r.Total.Codes, r.Total.Faults, r.Total.Failed, c.fault, c.code)
			}
		})
	}
}

// A target that never answers holds MaxInFlight calls and no more, and a run that is interrupted gives them up.
func TestInterruptedRunReportsWhatItHas(t *testing.T) {
	p := newPipes()
	stop := serve(p, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s := scenario(2000, time.Hour)
	s.MaxInFlight, s.Timeout = 10, 50*time.Millisecond
	r, err := load.Run(ctx, s, load.RunOptions{Dial: p.dial})
	if err != nil || !r.Interrupted || r.Valid || r.Total.Dropped == 0 || r.TookSeconds > 60 {
		t.Errorf("error %v, interrupted %v, valid %v, %d dropped in %g s", err, r.Interrupted, r.Valid, r.Total.Dropped, r.TookSeconds)
	}
}
