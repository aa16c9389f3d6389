package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/fleet"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/scale"
)

func TestReadScaled(t *testing.T) {
	spec, err := lab.ReadScenario("one.yaml", []byte(oneService))
	if err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{
		"a": "", "a:6": "", "a:16": "",
		"a:17": "from 1 to 16", "a:0": "from 1 to 16", "a:six": "from 1 to 16", "a:": "from 1 to 16",
		"b": "a service behind the gateway", "": "a service behind the gateway",
	} {
		all, err := readScaled([]string{flag}, &spec, nil)
		if want == "" && (err != nil || len(all) != 1 || all[0].name != "a") {
			t.Errorf("%q: %v, %v", flag, all, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v; want %s", flag, err, want)
		}
	}
	if _, err := readScaled([]string{"a", "a:3"}, &spec, nil); err == nil {
		t.Error("one service is scaled twice")
	}
	if _, err := readScaled([]string{"a"}, &spec, &lab.Real{}); err == nil {
		t.Error("processes are scaled")
	}
}

// TestLabKeepsWhatIsRecommended writes recommendations on the board, and sees the replicas of a real system follow.
func TestLabKeepsWhatIsRecommended(t *testing.T) {
	spec, err := lab.ReadScenario("one.yaml", []byte(oneService))
	if err != nil {
		t.Fatal(err)
	}
	u := &labUp{spec: spec, out: io.Discard, system: lab.NewSystem(spec, 1), scaled: []scaledService{{"a", 6}}}
	if err := u.system.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	cfg, err := gateway.Load("one", u.system.GatewayYAML("127.0.0.1:0", gateway.Off, gateway.Off))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = u.follow(&cfg); err != nil {
		t.Fatal(err)
	}
	if w := cfg.Scale[0]; w.Max != 6 || len(w.Routes) != 1 || w.Routes[0] != "a.x" || cfg.Routes[0].Policy.Limit == nil || cfg.Upstreams["a"].Discover == nil {
		t.Errorf("the gateway's configuration is %+v, %+v", w, cfg.Routes[0].Policy)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	u.system.Connect("", "")
	g.Go(func() error { return u.system.Run(ctx) })
	var board fleet.Board
	u.keep(ctx, g, &board)
	for _, desired := range []int{4, 2, 1} {
		board.Set(scale.Recommendation{Name: "a", At: time.Now().Add(time.Hour), Desired: desired}) // as good as new, however slow the machine is
		eventually(t, "the replicas follow", func() bool {
			if ctx.Err() != nil {
				t.Fatal("it ended")
			}
			return len(u.system.Endpoints("a")) == desired
		})
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
