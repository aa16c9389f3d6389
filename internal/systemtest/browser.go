package systemtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// pages is the folder of the scripts that look at pages, as a test of a package in internal sees it.
const pages = "../../ui"

// Screenshots is the folder that whoever runs the tests wants pictures in; "" = none are wanted.
func Screenshots() string { return os.Getenv("LONGPOLE_SCREENSHOTS") }

// NeedBrowser ends the test where there is no browser, see Missing, and skips it where it must be short.
func NeedBrowser(t *testing.T) (node string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser test is not short")
	}
	node = Program(t, "node")
	if _, err := os.Stat(filepath.Join(pages, "node_modules", "playwright-core")); err != nil {
		Missing(t, "there are no ui/node_modules")
	}
	browser := os.Getenv("CHROMIUM")
	if browser == "" {
		browser = "/usr/bin/chromium"
	}
	if _, err := os.Stat(browser); err != nil {
		Missing(t, "there is no Chromium here")
	}
	return node
}

// Look has the script of that name in the folder ui, with its arguments, look at a page in a real browser: it fails the test when the
// script fails, or takes five minutes.
func Look(t *testing.T, script string, args ...string) {
	t.Helper()
	node := NeedBrowser(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args = append([]string{script}, args...)
	if pictures := Screenshots(); pictures != "" {
		args = append(args, pictures)
	}
	cmd := exec.CommandContext(ctx, node, args...)
	cmd.Dir = pages
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
