package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole/setting"
)

func instance(name string, replica int, faults *board) *service {
	id := fmt.Sprintf("%s-%d", name, replica)
	return &service{name: name, instance: id, faults: faults, random: newSource(1, id), process: newProcess(newExporter(""), name, id, "host")}
}

func TestFaultHitsItsShareOfItsInstanceOnly(t *testing.T) {
	b := newBoard(Afflictions())
	count := func(name string, replica int, kind Kind) (n int) {
		s := instance(name, replica, b)
		for range 10_000 {
			if _, hit := b.hits(s, kind); hit {
				n++
			}
		}
		return n
	}
	if n := count("orders", 3, Delay); n < 1800 || n > 2200 {
		t.Errorf("orders-3 was slow %d times in 10000; want about 2000", n)
	}
	if n := count("orders", 1, Delay) + count("pricing", 1, Delay) + count("orders", 3, Fail); n != 0 {
		t.Errorf("%d calls were hit by a fault of another instance, service or kind", n)
	}
	if n := count("catalogue", 1, FullScan); n != 10_000 {
		t.Errorf("a fault without a ratio hit %d of 10000 calls; want all", n)
	}
}

func TestFaultsArePlantedAndRemovedByName(t *testing.T) {
	b := newBoard(nil)
	outage := Fault{Name: "outage", Service: "pricing", Kind: Fail, Status: 503}
	if err := b.plant(outage); err != nil {
		t.Fatal(err)
	}
	if err := b.plant(outage); !errors.Is(err, ErrPlanted) {
		t.Errorf("planting twice: %v; want ErrPlanted", err)
	}
	if _, hit := b.hits(instance("pricing", 1, b), Fail); !hit {
		t.Error("a planted fault does not hit")
	}
	if err := b.remove("outage"); err != nil || len(b.list()) != 0 {
		t.Errorf("removing: %v, %d left", err, len(b.list()))
	}
	if err := b.remove("outage"); !errors.Is(err, ErrNoFault) {
		t.Errorf("removing twice: %v; want ErrNoFault", err)
	}
	var err error
	for i := 0; i <= maxFaults && err == nil; i++ {
		outage.Name = fmt.Sprint("outage ", i)
		err = b.plant(outage)
	}
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("planting without end: %v; want ErrTooMany", err)
	}
}

func TestFaultySettingsAreAllNamed(t *testing.T) {
	for want, f := range map[string]Fault{
		"":                   {Name: "a", Service: "b", Kind: Fail, Status: 500},
		"name service kind":  {},
		"ratio min":          {Name: "a", Service: "b", Kind: Delay, Ratio: 2, Min: 2, Max: 1},
		"min":                {Name: "a", Service: "b", Kind: FullScan},
		"status":             {Name: "a", Service: "b", Kind: Fail, Status: 200},
		"service ratio kind": {Name: "a", Ratio: -1, Kind: "melt"},
	} {
		var paths []string
		for _, e := range setting.List(f.Validate()) {
			if fault, ok := errors.AsType[*setting.Error](e); ok {
				paths = append(paths, fault.Path)
			}
		}
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("%+v: faulty are %q; want %q", f, got, want)
		}
	}
	for _, f := range Afflictions() {
		if err := f.Validate(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	if _, err := New(Config{Rows: 1, Faults: []Fault{{}, {}}}); err == nil {
		t.Error("a bad configuration was accepted")
	}
	if err := newBoard(nil).plant(Fault{}); err == nil {
		t.Error("an invalid fault was planted")
	}
}

// worked is a call of a service that does nothing but what its faults do to it.
func worked(ctx context.Context, s *service) (time.Duration, error) {
	start := time.Now()
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	_, err := s.guarded(request, func(context.Context, *http.Request) (any, error) { return nil, nil })
	return time.Since(start), err
}

func TestDelayIsWaitedAndEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard([]Fault{{Name: "slow", Service: "orders", Kind: Delay, Min: ms(250), Max: ms(400)}})
		s := instance("orders", 3, b)
		for range 100 {
			if took, err := worked(t.Context(), s); err != nil || took < ms(250) || took >= ms(400) {
				t.Fatalf("the call took %s, error %v; want 250..400 ms", took, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), ms(100))
		defer cancel()
		if took, err := worked(ctx, s); !errors.Is(err, context.DeadlineExceeded) || took != ms(100) {
			t.Errorf("a given-up call ended after %s with %v; want 100 ms and the deadline", took, err)
		}
	})
}

func TestFailAnswersAtOnce(t *testing.T) {
	b := newBoard([]Fault{{Name: "outage", Service: "orders", Kind: Fail, Status: 503}})
	_, err := worked(t.Context(), instance("orders", 1, b))
	var f *failure
	if !errors.As(err, &f) || f.status != 503 {
		t.Errorf("got %v; want a failure with status 503", err)
	}
}
