// Package systemtest is what tests share that meet a real system: programs that must be installed, addresses, waiting for what
// another process does, and pages in a real browser.
//
// When not: within a synctest bubble, whose time is its own, there is nothing to poll for.
package systemtest

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Missing ends a test for want of what is named: it is skipped, or fails where CI=true says that all is installed.
func Missing(t testing.TB, what string) {
	t.Helper()
	const how = "; scripts/setup-tests.sh installs it"
	if os.Getenv("CI") == "true" {
		t.Fatal(what + how)
	}
	t.Skip(what + how)
}

// Program is the path of a program that must be installed; see Missing.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "there is no "+name+" here")
	}
	return path
}

// The bounds of Eventually: long enough for a machine that does ten other things.
const (
	patience = time.Minute
	lookTime = 10 * time.Millisecond
)

// Eventually asks, in real time, until ok. The test ends when that is not so within a minute.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(lookTime) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// FreeAddress is one of loopback, as 127.0.0.1:40000, on which nobody listens now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it was never used
	return l.Addr().String()
}
