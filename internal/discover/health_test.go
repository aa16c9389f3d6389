package discover

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthTellsWhyASourceFailsAndWhenItLastDidNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s := New(Config{File: &File{Path: path, Interval: time.Second}}, nil)
		if h := s.Health(); h != (Health{}) {
			t.Errorf("before Run: %+v", h)
		}
		go s.Run(ctx, nil, func([]Endpoint) {})
		time.Sleep(3 * time.Second)
		if h := s.Health(); h.Failing == "" || !h.LastGood.IsZero() {
			t.Errorf("without the file: %+v", h)
		}
		if err := os.WriteFile(path, []byte("[http://a:1]"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		good := s.Health()
		if good.Failing != "" || good.LastGood.IsZero() {
			t.Errorf("with it: %+v", good)
		}
		if err := os.WriteFile(path, []byte("nonsense: true"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if h := s.Health(); h.Failing == "" || !h.LastGood.Equal(good.LastGood) {
			t.Errorf("with a bad one: %+v", h)
		}
	})
}
