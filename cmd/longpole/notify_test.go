package main

import (
	"net"
	"path/filepath"
	"testing"
)

func TestNotifySpeaksToTheServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	notify(t.Context(), "nobody asked to be told this")
	t.Setenv("NOTIFY_SOCKET", path)
	notify(t.Context(), "READY=1")
	buf := make([]byte, 100)
	n, err := l.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	notify(t.Context(), "a manager that is gone is no fault")
}
