package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// okScenario is a run that no busy machine can spoil.
const okScenario = `arrivals: uniform
rate: 100
duration: 2s
max_lag: 1h
max_cpu: 100%%
timeout: 1m
targets:
  - {name: a, url: "http://%[1]s/a", weight: 3}
  - {name: b, url: "http://%[1]s/b", body: "{{seq}}"}
`

// TestLoadScript runs testdata/load. $SERVER is a server that answers with what it was asked for, and ok.yaml a scenario for it.
func TestLoadScript(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		fmt.Fprint(w, r.URL.Path)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://")
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/load",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(e *testscript.Env) error {
			e.Setenv("SERVER", at)
			return os.WriteFile(filepath.Join(e.WorkDir, "ok.yaml"), fmt.Appendf(nil, okScenario, at), 0o600)
		},
	})
}
