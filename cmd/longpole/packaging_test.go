package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/gateway"
)

// unit is the settings of packaging/systemd/longpole.service, by name.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", "longpole.service"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || name != strings.TrimSpace(name) {
			t.Errorf("%q is no setting", line)
		}
		all[name] = append(all[name], value)
	}
	return all
}

// TestTheUnitCallsCommandsThatAreThere parses the command lines of the unit as the program would.
func TestTheUnitCallsCommandsThatAreThere(t *testing.T) {
	u := unit(t)
	lines := append(append([]string{}, u["ExecStartPre"]...), u["ExecStart"]...)
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) < 2 || filepath.Base(words[0]) != "longpole" || !filepath.IsAbs(words[0]) {
			t.Errorf("%q does not call longpole by its whole path", line)
			continue
		}
		cmd, rest, err := newRoot().Find(words[1:])
		if err != nil || cmd.Name() != words[1] {
			t.Errorf("%q: there is no such command: %v", line, err)
			continue
		}
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if cmd.Name() == "serve" && cmd.Flag("config").Value.String() == "" {
			t.Errorf("%q names no configuration", line)
		}
	}
	if len(u["ExecStart"]) != 1 {
		t.Errorf("%d commands start the service", len(u["ExecStart"]))
	}
}

func TestTheUnitFitsTheProgram(t *testing.T) {
	u := unit(t)
	if u["Type"][0] != "notify" {
		t.Error("the program tells when it is ready, and the unit does not listen")
	}
	if !regexp.MustCompile(`^/\S*kill -HUP \$MAINPID$`).MatchString(u["ExecReload"][0]) {
		t.Errorf("a reload is %q, and not the signal that serve heeds", u["ExecReload"][0])
	}
	stop, err := time.ParseDuration(u["TimeoutStopSec"][0])
	if err != nil {
		t.Fatal(err)
	}
	if l := (gateway.Limits{}).WithDefaults(); stop <= l.DrainDelay+l.DrainTimeout {
		t.Errorf("the service is killed after %s, before its drain of up to %s has ended", stop, l.DrainDelay+l.DrainTimeout)
	}
	if !strings.Contains(strings.Join(u["RestrictAddressFamilies"], " "), "AF_UNIX") {
		t.Error("without AF_UNIX the service manager is told nothing")
	}
}
