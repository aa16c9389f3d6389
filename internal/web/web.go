package web

import (
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/store"
)

//go:embed page
var page embed.FS

// Findings is the newest diagnosis of live traffic. The zero value means that there was none yet.
type Findings struct {
	At     time.Time     // when it was made
	Window time.Duration // how far back its traces go
	Report advise.Report
}

// Options is what the handler shows and steers. All but Token and Log are needed.
type Options struct {
	Gateway  *gateway.Gateway
	Rollouts *rollout.Controller
	Findings func() Findings
	Dropped  func() map[string]uint64 // spans lost on the way to the diagnosis, by reason
	Version  string
	Token    string       // asked for as bearer token or as basic password; "" = everybody may
	Log      *slog.Logger // nil = nothing is logged
	Schema   []byte       // JSON Schema of the configuration; nil = there is none
	Reload   func() error // reads the configuration file again; nil = there is none
	Profile  bool         // true = profiles of the Go runtime under /debug/pprof/
	Store    *store.Store // what outlives the process; nil = nothing does
	Live     Live         // what the server knows beside the gateway
	Reviews  Reviews      // records of changes, and reviews of them; nil = nobody keeps them
	Lab      Lab          // a system whose faults can be switched; nil = there is none, and the API has nothing of it
}

// admin holds the handlers.
type admin struct{ Options }

// New returns the admin handler. It is safe for concurrent use and starts nothing.
func New(o Options) http.Handler {
	a := &admin{o}
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	static, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the embedded folder is there or the program does not compile
	}
	open := http.NewServeMux()
	open.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	open.HandleFunc("GET /readyz", a.ready)
	if o.Schema != nil {
		open.HandleFunc("GET /schema.json", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/schema+json")
			_, _ = w.Write(o.Schema)
		})
	}
	guarded := http.NewServeMux()
	guarded.HandleFunc("GET /api/v1/routes", a.routes)
	guarded.HandleFunc("GET /api/v1/config", a.config)
	guarded.HandleFunc("GET /api/v1/overload", a.overload)
	guarded.HandleFunc("GET /api/v1/findings", a.findings)
	guarded.HandleFunc("GET /api/v1/rollouts", a.rollouts)
	guarded.HandleFunc("GET /api/v1/rollouts/{id}", a.rollout)
	guarded.HandleFunc("POST /api/v1/rollouts", a.startRollout)
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/promote", a.steer(a.Rollouts.Promote))
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/abort", a.steer(a.Rollouts.Abort))
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/pause", a.steer(a.Rollouts.Pause))
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/resume", a.steer(a.Rollouts.Resume))
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/undo", a.steer(a.Rollouts.Undo))
	guarded.HandleFunc("POST /api/v1/rollouts/{id}/release", a.steer(a.Rollouts.Release))
	guarded.HandleFunc("POST /judge", a.judge)
	guarded.HandleFunc("GET /api/v1/faults", a.faults)
	guarded.HandleFunc("GET /api/v1/faults/{name}", a.oneFault)
	guarded.HandleFunc("POST /api/v1/faults", a.startFault)
	guarded.HandleFunc("DELETE /api/v1/faults/{name}", a.stopFault)
	guarded.HandleFunc("GET /api/v1/certificates", a.certificates)
	guarded.HandleFunc("GET /api/v1/discovery", a.discovery)
	guarded.HandleFunc("GET /api/v1/history", a.history)
	guarded.HandleFunc("GET /api/v1/killed", a.killed)
	guarded.HandleFunc("POST /api/v1/killed", a.kill)
	a.jobs(guarded)
	a.signals(guarded)
	a.reviewing(guarded)
	a.laboratory(guarded)
	guarded.Handle("GET /metrics", a.metrics())
	if a.Reload != nil {
		guarded.HandleFunc("POST /-/reload", a.reload)
	}
	if a.Profile {
		profile(guarded)
	}
	guarded.HandleFunc("GET /api/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "there is no "+r.URL.Path+"; there are /api/v1/routes, config, overload, findings, evidence, rollouts, slos, scale, traces, received, calibration, faults, jobs, discovery, certificates, history, killed, records, workload, exercised, predictions, dismissals and review")
	})
	guarded.Handle("GET /", http.FileServerFS(static))
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusForbidden, "a page of another site may change nothing here")
	}))
	open.Handle("/", a.authorised(sameOrigin.Handler(guarded)))
	if o.Token != "" {
		return headers(open)
	}
	return headers(ownHost(open))
}

// headers says to browsers that the page needs nothing from elsewhere, and that figures go stale at once.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// ownHost refuses DNS rebinding: a name that an attacker controls may point to a loopback address, an IP literal and
// "localhost" may not. It stands where there is no token: a browser sends none to the attacker's name.
func ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if _, err := netip.ParseAddr(trimBrackets(host)); err != nil && !strings.EqualFold(host, "localhost") {
			writeError(w, http.StatusMisdirectedRequest, fmt.Sprintf("without a token the admin side answers only to its IP address or localhost, not to %q", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

func (a *admin) authorised(next http.Handler) http.Handler {
	if a.Token == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.knownTo(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="longpole", charset="UTF-8"`)
			writeError(w, http.StatusUnauthorized, "a token is needed: as bearer token, or as the password of any user")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownTo reports whether r carries the token.
func (a *admin) knownTo(r *http.Request) bool {
	_, password, _ := r.BasicAuth()
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return same(password, a.Token) || strings.EqualFold(scheme, "Bearer") && same(bearer, a.Token)
}

// same compares in a time that tells nothing of the content.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "the answer could not be written: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that went away needs no answer
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// problem is the body of every error.
type problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"` // how to mend it, where that is no part of the error
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, problem{Error: text})
}
