package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/web"
)

// bench is a lab without a system: what its switches are told.
type bench struct {
	mu  sync.Mutex
	on  map[string]bool
	err error
}

func newBench() *bench { return &bench{on: map[string]bool{"slow-orders": false, "burn": false}} }

func (b *bench) Status() web.LabStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := web.LabStatus{Scenario: "shop", About: "one of three replicas is slow", Faults: []web.LabFault{}}
	for _, name := range []string{"burn", "slow-orders"} {
		s.Faults = append(s.Faults, web.LabFault{Name: name, What: "delay of orders, replica 3", On: b.on[name]})
	}
	return s
}

func (b *bench) Switch(_ context.Context, name string, on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.on[name] = on
	}
	return b.err
}

func TestFaultsOfALabAreSwitched(t *testing.T) {
	b := newBench()
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{}, func(f *fixture) { f.lab = b })
	if on := f.do("GET", "/api/v1/routes", "").want(http.StatusOK).json("lab"); on != true {
		t.Errorf("the routes say lab: %v", on)
	}
	if name := f.do("GET", "/api/v1/lab", "").want(http.StatusOK).json("faults", 1, "name"); name != "slow-orders" {
		t.Errorf("the second fault is %v", name)
	}
	const body, kind = `{"on": true}`, "application/json"
	if on := f.do("POST", "/api/v1/lab/faults/slow-orders", body, "Content-Type", kind).want(http.StatusOK).json("faults", 1, "on"); on != true {
		t.Errorf("on: %v", on)
	}
	f.do("POST", "/api/v1/lab/faults/slow-orders", `{"on": false}`, "Content-Type", kind).want(http.StatusOK, `"on":false`)
	f.do("POST", "/api/v1/lab/faults/slow-orders", `{}`, "Content-Type", kind).want(http.StatusBadRequest, "true or false")
	f.do("POST", "/api/v1/lab/faults/slow-orders", `{"off": true}`, "Content-Type", kind).want(http.StatusBadRequest)
	f.do("POST", "/api/v1/lab/faults/meteor", body, "Content-Type", kind).want(http.StatusNotFound, "meteor")
	f.do("POST", "/api/v1/lab/faults/slow-orders", body, "Content-Type", kind, "Sec-Fetch-Site", "cross-site").want(http.StatusForbidden, "another site")
	f.do("POST", "/api/v1/lab/faults/slow-orders", body, "Content-Type", kind, "Host", "lab.example").want(http.StatusMisdirectedRequest)
	f.do("GET", "/api/v1/lab/faults/slow-orders", "").want(http.StatusNotFound)
	if b.Status().Faults[1].On {
		t.Error("what was refused was done")
	}
	b.err = errors.New("the database is gone")
	f.do("POST", "/api/v1/lab/faults/burn", body, "Content-Type", kind).want(http.StatusInternalServerError, "the database is gone")
}

func TestWithoutALabThereIsNothingToSwitch(t *testing.T) {
	f := newFixture(t, twoRoutes(upstream(t)), gateway.Options{})
	if on := f.do("GET", "/api/v1/routes", "").want(http.StatusOK).json("lab"); on != false {
		t.Errorf("the routes say lab: %v", on)
	}
	for _, x := range [][2]string{{"GET", "/api/v1/lab"}, {"POST", "/api/v1/lab/faults/burn"}} {
		if a := f.do(x[0], x[1], `{"on": true}`, "Content-Type", "application/json"); !slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed}, a.status) {
			t.Errorf("%s answers %d %s", fmt.Sprint(x), a.status, a.body)
		}
	}
}
