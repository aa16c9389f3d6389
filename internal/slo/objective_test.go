package slo

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/setting"
)

func TestFactorsFollowFromTheBudget(t *testing.T) {
	for period, want := range map[Period][]float64{
		Period(30 * Day): {14.4, 6, 3, 1},
		Period(28 * Day): {13.44, 5.6, 2.8, 28.0 / 30},
	} {
		for i, w := range DefaultWindows() {
			if got := w.Factor(period); math.Abs(got-want[i]) > 1e-12 {
				t.Errorf("%s, %v: factor %v, want %v", period, w, got, want[i])
			}
		}
	}
}

func TestPeriodsAreDays(t *testing.T) {
	for text, want := range map[string]Period{"30d": Period(30 * Day), "4w": Period(28 * Day), "720h": Period(30 * Day), "168h0m0s": Period(7 * Day)} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("%s: %v %v", text, p, err)
		}
		var again Period
		if out, _ := p.MarshalText(); again.UnmarshalText(out) != nil || again != p {
			t.Errorf("%s: written as %s, read as %v", text, out, again)
		}
	}
	for _, text := range []string{"", "d", "30", "-1d", "1.5d", "30m", "99999999d", "1h30m", "x"} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, p)
		}
	}
}

func TestFaultsAreNamed(t *testing.T) {
	good := Objective{Name: "orders-fast", Route: "orders", Target: 0.999, Threshold: 250 * time.Millisecond}
	change := func(f func(*Objective)) Objective { o := good; f(&o); return o }
	for name, c := range map[string]struct {
		o     Objective
		paths string
	}{
		"good":                        {good, ""},
		"nothing":                     {Objective{}, "name route target"},
		"all of it":                   {Objective{Name: "a b", Route: "r", Target: 1, Kind: "speed", Period: Period(Day), MinBad: 1, Threshold: 1}, "name target kind threshold period min_bad"},
		"a threshold of availability": {change(func(o *Objective) { o.Kind = Availability }), "threshold"},
		"latency without threshold":   {change(func(o *Objective) { o.Kind, o.Threshold = Latency, 0 }), "threshold"},
		"windows": {change(func(o *Objective) {
			o.Windows = []Window{{"sms", 2, 4 * Day, time.Second}, {Page, 0.02, time.Hour, time.Hour}}
		}), "windows[0].severity windows[0].budget windows[0].long windows[0].short windows[1].short"},
		"the fastest factor cannot be reached":  {change(func(o *Objective) { o.Target = 0.93 }), "target"},
		"it just can":                           {change(func(o *Objective) { o.Target = 0.9306 }), ""},
		"two cannot":                            {change(func(o *Objective) { o.Target = 0.8 }), "target target"},
		"windows of its own that can":           {change(func(o *Objective) { o.Target, o.Windows = 0.8, []Window{{Page, 0.01, 6 * time.Hour, 30 * time.Minute}} }), ""},
		"with 28 days the factors are lower":    {change(func(o *Objective) { o.Target, o.Period = 0.926, Period(28*Day) }), ""},
		"and still cannot all be reached below": {change(func(o *Objective) { o.Target, o.Period = 0.925, Period(28*Day) }), "target"},
	} {
		var paths []string
		for _, e := range setting.List(c.o.Validate()) {
			paths = append(paths, path(t, e))
		}
		if got := strings.Join(paths, " "); got != c.paths {
			t.Errorf("%s: %q, want %q", name, got, c.paths)
		}
	}
	err := change(func(o *Objective) { o.Target = 0.93 }).Validate()
	if want := "the factor of this one is 14.4 and burn ends at 14.29"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want the reason: %s", err, want)
	}
}

func TestNamesAreThereOnce(t *testing.T) {
	o := Objective{Name: "a", Route: "r", Target: 0.999}
	err := ValidateAll([]Objective{o, {Name: "b", Route: "r"}, o})
	var paths []string
	for _, e := range setting.List(err) {
		paths = append(paths, path(t, e))
	}
	if got := strings.Join(paths, " "); got != "[1].target [2].name" {
		t.Error(got)
	}
	if err := ValidateAll(make([]Objective, MaxObjectives+1)); err == nil {
		t.Error("too many are taken")
	}
}

func TestCountTellsGoodFromBad(t *testing.T) {
	classes := map[string]uint64{"ok": 100, "client": 10, "server": 4, "refused": 3, "timeout": 2, "shed": 1, "canceled": 50}
	if got := (Objective{}).WithDefaults().Count(classes, stats.Snapshot{}); got != (Counts{120, 10}) {
		t.Errorf("availability: %+v", got)
	}
	o := Objective{Threshold: stats.Shift(250*time.Millisecond, 0)}.WithDefaults()
	latency := stats.Of(10*time.Millisecond, 200*time.Millisecond, 260*time.Millisecond, time.Second)
	if got := o.Count(classes, latency); got != (Counts{4, 2}) {
		t.Errorf("latency: %+v", got)
	}
}

// path is that of one fault.
func path(t *testing.T, err error) string {
	t.Helper()
	fault, ok := errors.AsType[*setting.Error](err)
	if !ok {
		t.Fatalf("%v is no fault of a setting", err)
	}
	return fault.Path
}
