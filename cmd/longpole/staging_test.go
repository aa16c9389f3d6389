package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/scale"
	"github.com/longpole/longpole/internal/slo"
	"github.com/longpole/longpole/internal/staging"
	"github.com/longpole/longpole/internal/web"
)

// cached is the change that goes from staging to production.
const cached = "cache: {ttl: 1m}\ntimeout: 10s\n"

func post(t *testing.T, url, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func TestProductionAcceptsWhatStagingVerified(t *testing.T) {
	up := newBackend(t, slow(8*time.Millisecond))
	stage := newSystem(t, config("{timeout: 10s}", up)+"environment: {name: staging}\nstate: {dir: "+t.TempDir()+"}\n")
	folder := filepath.Join(t.TempDir(), "records")
	byURL := newSystem(t, config("{timeout: 10s}", up)+"environment: {name: production, requires: staging, url: '"+stage.adminURL()+"', least: 1}\n")
	byFolder := newSystem(t, config("{timeout: 10s}", up)+"environment: {name: production, requires: staging, records: "+folder+", least: 100}\n")

	for _, y := range []*system{byURL, byFolder} {
		code, _, stderr := y.start(cached)
		if code != exitError || !strings.Contains(stderr, "longpole: error: the change was not verified: environment staging has no record of sha256:") || !strings.Contains(stderr, "longpole: hint: run the same rollout there until it is promoted") {
			t.Fatalf("a change that staging does not know: %d %s", code, stderr)
		}
	}
	if status, text := post(t, byURL.adminURL()+"/api/v1/rollouts", `{"route": "all", "to": {"timeout": "9s"}}`); status != http.StatusConflict || !strings.Contains(text, `"hint":`) {
		t.Errorf("%d %s", status, text)
	}

	f := drive(t, stage.url+"/same", 8)
	f.more(t, 100)
	if code, stdout, stderr := stage.start(cached, "--target", "p50", "--reason", "the same read again and again", "--watch"); code != 0 {
		t.Fatalf("staging: %d\n%s%s", code, stdout, stderr)
	}
	f.stop()
	code, record, stderr := stage.cli("rollout", "record", "--admin", stage.adminURL())
	r, err := staging.ParseRecord([]byte(record))
	if code != 0 || err != nil || !r.Verified() || r.Environment != "staging" || r.Workload == nil || r.Workload.Calls == 0 || r.Reason != "the same read again and again" {
		t.Fatalf("the record: %d %s %v %s", code, stderr, err, record)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"r1.json": record, "broken.json": "{", "README.md": "not a record"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if code, stdout, stderr := byURL.start(cached); code != 0 {
		t.Fatalf("what staging verified: %d\n%s%s", code, stdout, stderr)
	}
	if s := byURL.status("r1"); s.Weak || s.Override || !strings.Contains(fmt.Sprint(s.Journal), "verified in staging by r1") || !strings.Contains(fmt.Sprint(s.Journal), "fidelity ") || s.Hash != r.Hash {
		t.Errorf("%+v", s)
	}
	if code, stdout, stderr := byFolder.start(cached); code != 0 {
		t.Fatalf("what the folder says: %d\n%s%s", code, stdout, stderr)
	}
	if s := byFolder.status("r1"); !s.Weak || s.Steps != 2 || !strings.Contains(fmt.Sprint(s.Journal), "(weak)") {
		t.Errorf("without traffic production is nothing like staging: %+v", s)
	}

	byURL.overridden()
	if code, _, stderr := stage.cli("rollout", "undo", "r1", "--admin", stage.adminURL()); code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := stage.cli("rollout", "record", "r1", "--admin", stage.adminURL()); code != exitError || !strings.Contains(stderr, "it promoted nothing that is in force") {
		t.Errorf("the record of what was undone: %d %s", code, stderr)
	}
	if code, _, stderr := byURL.start(cached); code != exitError || !strings.Contains(stderr, "was not verified") {
		t.Errorf("what staging has undone: %d %s", code, stderr)
	}
}

// overridden begins a change that was not verified, and leaves it undone.
func (y *system) overridden() {
	y.t.Helper()
	if code, _, stderr := y.cli("rollout", "abort", "r1", "--admin", y.adminURL()); code != 0 {
		y.t.Fatal(stderr)
	}
	if code, _, stderr := y.start("{timeout: 8s}", "--override"); code != exitError || !strings.Contains(stderr, "override") {
		y.t.Errorf("an override without a reason: %d %s", code, stderr)
	}
	if code, _, stderr := y.start("{timeout: 8s}", "--override", "--reason", "the outage cannot wait"); code != 0 {
		y.t.Fatalf("an override: %s", stderr)
	}
	s := y.status("r2")
	if text := fmt.Sprint(s.Journal); !s.Override || !s.Weak || !strings.Contains(text, "the outage cannot wait") || !strings.Contains(text, "overridden") {
		y.t.Errorf("%+v", s)
	}
	if code, stdout, _ := y.cli("rollout", "history", "--admin", y.adminURL()); code != 0 || !strings.Contains(stdout, "overridden") {
		y.t.Errorf("the override is not in the history: %s", stdout)
	}
	if code, _, stderr := y.cli("rollout", "abort", "r2", "--admin", y.adminURL()); code != 0 {
		y.t.Fatal(stderr)
	}
}

func TestAnUnreachableStagingRefuses(t *testing.T) {
	y := newSystem(t, config("{timeout: 10s}", newBackend(t, named("x")))+"environment: {name: production, requires: staging, url: 'http://127.0.0.1:1'}\n")
	if code, _, stderr := y.start(cached); code != exitError || !strings.Contains(stderr, "was not verified") || !strings.Contains(stderr, "no answer from http://127.0.0.1:1") {
		t.Errorf("%d %s", code, stderr)
	}
}

// hook is a webhook that remembers what it was told.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	events []string
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n notice
		if json.NewDecoder(r.Body).Decode(&n) == nil {
			h.mu.Lock()
			h.events = append(h.events, n.Event)
			h.mu.Unlock()
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) told(event string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(strings.Join(h.events, " "), event)
}

func TestAHarmfulChangeIsPagedReviewedAndTakenBack(t *testing.T) {
	h, folder, state := newHook(t), t.TempDir(), t.TempDir()
	base := config("{timeout: 10s}", newBackend(t, slow(4*time.Millisecond))) + "state: {dir: " + state + "}\n"
	y := newSystem(t, base+fmt.Sprintf("review: {webhook: '%s', folder: %s}\n", h.URL, folder))
	f := drive(t, y.url+"/", 8)
	f.more(t, 100)
	if code, _, stderr := y.start("{try_timeout: 1ms, timeout: 10s, retry: {off: true}}", "--holdback", "0.1", "--reason", "a mistake"); code != 0 {
		t.Fatal(stderr)
	}
	eventually(t, "the warm-up", func() bool { return y.status("r1").Phase != rollout.Pending })
	if code, _, stderr := y.cli("rollout", "promote", "r1", "--admin", y.adminURL(), "--reason", "no time"); code != 0 {
		t.Fatal(stderr)
	}
	now := time.Now()
	look := func() {
		f.more(t, 300)
		now = now.Add(10 * time.Second)
		y.reviewer.look(now)
	}
	standing := func() review.Verdict {
		y.reviewer.mu.Lock()
		defer y.reviewer.mu.Unlock()
		if all := y.reviewer.watch.Standings(); len(all) > 0 {
			return all[0].Verdict
		}
		return ""
	}
	eventually(t, "the harm shows", func() bool { look(); return standing() == review.NowHarmful })
	eventually(t, "somebody is paged", func() bool { return h.told("harmful") })

	code, stdout, stderr := y.cli("review", "--admin", y.adminURL())
	if code != exitThreshold || !strings.Contains(stdout, "NOW HARMFUL  r1 of route all") || !strings.Contains(stdout, "LP320 critical") || !strings.Contains(stderr, "longpole: hint: `longpole rollout undo r1`") {
		t.Fatalf("review: %d\n%s%s", code, stdout, stderr)
	}
	if got := get(y.adminURL() + "/metrics"); !strings.Contains(got.body, `longpole_review_findings{code="LP320",severity="critical"} 1`) {
		t.Error("the metrics do not tell of it")
	}
	for _, extension := range []string{"md", "html", "json"} {
		if files, err := filepath.Glob(filepath.Join(folder, "review-*."+extension)); err != nil || len(files) != 1 {
			t.Errorf("%v %v", files, err)
		}
	}
	if code, last, _ := y.cli("review", "--last", "-o", "markdown", "--admin", y.adminURL()); code != exitThreshold || !strings.Contains(last, "| r1 |") {
		t.Errorf("the last review: %d %s", code, last)
	}

	y.write(base + fmt.Sprintf("review: {webhook: '%s', auto_rollback: true}\n", h.URL))
	if err := y.reread(y.path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is taken back", func() bool { look(); return !y.status("r1").Undone.IsZero() })
	eventually(t, "somebody is told", func() bool { return h.told("undone") })
	code, stdout, stderr = y.cli("review", "-o", "json", "--admin", y.adminURL())
	var r review.Review
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || len(r.Ledger) != 1 || r.Ledger[0].Undone.IsZero() || r.Ledger[0].Reason != "a mistake" ||
		strings.Join(r.Diff.Verdicts, "") != "r1 all: NOW HARMFUL -> UNDONE" {
		t.Errorf("%d %v %s%s", code, err, stdout, stderr)
	}
	f.stop()
}

func TestReviewsSurviveARestart(t *testing.T) {
	d := newDurable(t)
	var first, again review.Review
	d.ask(http.MethodPost, "/api/v1/rollouts", tryCache, nil)
	d.reaches("r1", rollout.Promoted)
	d.ask(http.MethodPost, "/api/v1/review", "", &first)
	if len(first.Ledger) != 1 || first.Ledger[0].Rollout != "r1" {
		t.Fatalf("%+v", first.Ledger)
	}
	d.again()
	d.ask(http.MethodGet, "/api/v1/review", "", &again)
	if !again.At.Equal(first.At) || len(again.Ledger) != 1 {
		t.Errorf("%+v", again)
	}
	var answer struct{ Records []staging.Record }
	d.ask(http.MethodGet, "/api/v1/records", "", &answer)
	if len(answer.Records) != 1 || answer.Records[0].Environment != standsAlone || answer.Records[0].Workload == nil {
		t.Errorf("%+v", answer.Records)
	}
}

func TestReviewsComeOnSchedule(t *testing.T) {
	cfg, err := gateway.Load("test", []byte("review: {every: 1h}\nupstreams: {up: {endpoints: 'http://127.0.0.1:1'}}\nroutes: [{name: all, upstream: up}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g, err := gateway.New(cfg, gateway.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v := &reviewer{
			gateway: g, rollouts: rollout.NewController(rollout.Options{Target: g}), findings: func() web.Findings { return web.Findings{} },
			objectives: func() []slo.Status { return nil }, replicas: func() []scale.Recommendation { return nil },
			log: slog.New(slog.DiscardHandler), watch: review.NewWatch(0), meters: review.NewMeters(),
			survey: review.NewSurvey(), calendar: review.NewCalendar(),
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- v.Run(ctx) }()
		made := func() time.Duration {
			r, ok := v.Newest()
			if !ok {
				return 0
			}
			return r.At.Sub(bubbleEpoch)
		}
		time.Sleep(59 * time.Minute)
		if at := made(); at != 0 {
			t.Errorf("the first review comes after %s", at)
		}
		time.Sleep(2 * time.Minute)
		first := made()
		if first < time.Hour || first > time.Hour+20*time.Second {
			t.Errorf("the first review comes after %s, want an hour", first)
		}
		time.Sleep(30 * time.Minute)
		if _, err := v.Review(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(31 * time.Minute)
		if next := made() - first; next < time.Hour || next > time.Hour+20*time.Second {
			t.Errorf("the next one comes %s after the first, want an hour: one by hand does not put it off", next)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// bubbleEpoch is when the clock of a bubble begins.
var bubbleEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
