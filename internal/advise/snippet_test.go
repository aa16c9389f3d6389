package advise

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	longpole "github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

var update = flag.Bool("update", false, "write the golden files anew")

// settings that have snippets, one of each kind and all together.
var snippetCases = map[string]longpole.Config{
	"timeout": {Timeout: 2 * time.Second, TryTimeout: 450 * time.Millisecond, Retry: &retry.Config{MaxAttempts: 2, BudgetRatio: 0.1}},
	"off":     {Retry: &retry.Config{Off: true}},
	"hedge":   {Retry: &retry.Config{Hedge: &retry.Hedge{After: 42 * time.Millisecond}}},
	"breaker": {Breaker: &breaker.Config{SlowAfter: 300 * time.Millisecond}},
	"eject":   {Balance: &balance.Config{Eject: &balance.Eject{}}},
	"limit":   {Limit: &limit.Config{Limit: 40, Queue: &limit.Queue{}, Rate: &limit.Rate{PerSecond: 200}}},
	"cache":   {Cache: &cache.Config{TTL: 2 * time.Second, StaleWhileRevalidate: 6 * time.Second}},
	"warm":    {Balance: &balance.Config{SlowStart: 30 * time.Second}},
	"all": {
		Timeout: 2 * time.Second, TryTimeout: 450 * time.Millisecond, Cache: &cache.Config{TTL: 2 * time.Second, StaleWhileRevalidate: 6 * time.Second},
		Retry: &retry.Config{MaxAttempts: 3, Hedge: &retry.Hedge{After: 42 * time.Millisecond}}, Breaker: &breaker.Config{},
		Balance: &balance.Config{Eject: &balance.Eject{}, SlowStart: 30 * time.Second}, Limit: &limit.Config{Limit: 40},
	},
}

// eachSnippet calls visit for every snippet there is.
func eachSnippet(t *testing.T, visit func(t *testing.T, name string, s Snippet)) {
	for name, config := range snippetCases {
		for _, s := range snippets("Orders API", longpole.Config{}, config) {
			t.Run(s.For+"/"+name, func(t *testing.T) { visit(t, name, s) })
		}
	}
}

func TestSnippetsAreAsReviewed(t *testing.T) {
	eachSnippet(t, func(t *testing.T, name string, s Snippet) {
		path := filepath.Join("testdata", "snippets", s.For+"-"+name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(s.Text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if s.Text+"\n" != string(want) {
			t.Errorf("%s differs (go test -run Snippets -update writes it anew):\n%s", path, s.Text)
		}
	})
}

func TestSnippetsHoldOnlyWhatChanges(t *testing.T) {
	from := longpole.Config{Timeout: time.Second, Breaker: &breaker.Config{}}
	to := from
	to.Retry = &retry.Config{MaxAttempts: 2}
	for _, s := range snippets("orders", from, to) {
		for _, word := range []string{"slidingWindow", "failure_percentage", "max_fails", "timeout: 1s", "error-limit"} {
			if strings.Contains(s.Text, word) {
				t.Errorf("%s: %q is as it was:\n%s", s.For, word, s.Text)
			}
		}
	}
	if got := snippets("orders", to, to); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestSnippetsOfYAMLAreYAML reads those of Envoy, Istio and resilience4j document by document.
func TestSnippetsOfYAMLAreYAML(t *testing.T) {
	eachSnippet(t, func(t *testing.T, _ string, s Snippet) {
		if s.For == "nginx" || s.For == "haproxy" {
			return
		}
		text := s.Text
		if s.For == "envoy" { // its parts belong to different places
			text = strings.ReplaceAll(text, "# cluster\n", "---\n")
			text = strings.ReplaceAll(text, "# HTTP filter", "---\n# HTTP filter")
		}
		for document := range strings.SplitSeq(text, "---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			var into map[string]any
			if err := yaml.Unmarshal([]byte(document), &into); err != nil {
				t.Errorf("%v\n%s", err, document)
			}
		}
	})
}

// checked writes a file and has a tool's own binary read it.
func checked(t *testing.T, text string, tool string, args func(file string) []string) {
	path, err := exec.LookPath(tool)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/usr/local/sbin/"} {
			if _, err = os.Stat(dir + tool); err == nil {
				path = dir + tool
				break
			}
		}
		if err != nil {
			t.Skipf("%s is not installed; scripts/setup-tests.sh installs it", tool)
		}
	}
	file := filepath.Join(t.TempDir(), tool+".conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args(file)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\n%s", err, out, text)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "[WARNING]") || strings.Contains(line, "[warn]") {
			t.Errorf("%s\n%s", line, text)
		}
	}
}

func TestNginxTakesItsSnippets(t *testing.T) {
	eachSnippet(t, func(t *testing.T, _ string, s Snippet) {
		if s.For != "nginx" {
			return
		}
		dir := t.TempDir()
		text := strings.ReplaceAll(s.Text, "/var/cache/nginx", dir)
		checked(t, "pid "+dir+"/pid;\nerror_log "+dir+"/log;\nevents {}\nhttp {\n"+
			"client_body_temp_path "+dir+"/1; proxy_temp_path "+dir+"/2; fastcgi_temp_path "+dir+"/3; uwsgi_temp_path "+dir+"/4; scgi_temp_path "+dir+"/5; access_log off;\n"+
			text+"\n}\n", "nginx", func(file string) []string { return []string{"-t", "-q", "-p", dir, "-e", dir + "/log", "-c", file} })
	})
}

func TestHAProxyTakesItsSnippets(t *testing.T) {
	eachSnippet(t, func(t *testing.T, _ string, s Snippet) {
		if s.For != "haproxy" {
			return
		}
		checked(t, "global\n    maxconn 100\ndefaults\n    mode http\n    timeout client 10s\n    timeout connect 1s\n    timeout server 10s\n"+
			"frontend f\n    bind 127.0.0.1:18080\n    default_backend orders-api\n"+s.Text+"\n", "haproxy",
			func(file string) []string { return []string{"-c", "-f", file} })
	})
}
