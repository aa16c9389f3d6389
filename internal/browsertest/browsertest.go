// Package browsertest runs the page tests of the folder ui, which look at a page in a real browser.
package browsertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// folder is that of the scripts, as a test of a package in internal sees it.
const folder = "../../ui"

// Screenshots is the folder that whoever runs the tests wants pictures in; "" = none are wanted.
func Screenshots() string { return os.Getenv("LONGPOLE_SCREENSHOTS") }

// Need skips the test where there is no browser, or where it must be short; in continuous integration a missing browser fails it.
func Need(t *testing.T) (node string) {
	t.Helper()
	missing := func(what string) {
		const how = "; scripts/setup-tests.sh installs it"
		if os.Getenv("CI") == "true" {
			t.Fatal(what + how)
		}
		t.Skip(what + how)
	}
	if testing.Short() {
		t.Skip("a browser test is not short")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing("no node")
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules", "playwright-core")); err != nil {
		missing("no ui/node_modules")
	}
	browser := os.Getenv("CHROMIUM")
	if browser == "" {
		browser = "/usr/bin/chromium"
	}
	if _, err := os.Stat(browser); err != nil {
		missing("no Chromium")
	}
	return node
}

// Run has the script of that name, with its arguments, look at a page: it fails the test when the script fails, or takes
// five minutes.
func Run(t *testing.T, script string, args ...string) {
	t.Helper()
	node := Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args = append([]string{script}, args...)
	if pictures := Screenshots(); pictures != "" {
		args = append(args, pictures)
	}
	cmd := exec.CommandContext(ctx, node, args...)
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
