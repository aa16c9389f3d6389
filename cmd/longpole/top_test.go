package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"github.com/longpole/longpole/internal/gateway"
)

// screenOf is a top that has looked once, 80 by 20.
func screenOf(routes ...gateway.RouteStatus) *topModel {
	m := &topModel{ctx: context.Background(), every: 1, base: "http://gw"}
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 20})
	m.Update(looked{list: routeList{Version: "v1", Routes: routes}})
	return m
}

func route(name string, p99, errors float64) gateway.RouteStatus {
	return gateway.RouteStatus{
		Name: name, Upstream: "up", Calls: 1, ErrorRatio: errors, LatencyMS: gateway.Quantiles{P99: p99},
		Endpoints: []gateway.EndpointStatus{{Name: name + ":80", Healthy: true, Breaker: "closed"}},
	}
}

func (m *topModel) press(keys ...string) {
	for _, k := range keys {
		text := k
		if len(k) > 1 {
			text = ""
		}
		m.key(k, text)
	}
}

// before reports whether a stands above b on the screen.
func before(screen, a, b string) bool {
	i, j := strings.Index(screen, a), strings.Index(screen, b)
	return i >= 0 && j >= 0 && i < j
}

func TestTopShowsTheWorstFirstAndSortsOnDemand(t *testing.T) {
	m := screenOf(route("calm", 5, 0.5), route("slow", 900, 0))
	if s := m.screen(); !before(s, "slow", "calm") {
		t.Errorf("by p99:\n%s", s)
	}
	m.press("s")
	if s := m.screen(); !before(s, "calm", "slow") {
		t.Errorf("by errors:\n%s", s)
	}
}

func TestTopOpensARouteAndFilters(t *testing.T) {
	m := screenOf(route("alpha", 9, 0), route("beta", 8, 0))
	m.press("down", "enter")
	if s := m.screen(); !strings.Contains(s, "beta:80") || strings.Contains(s, "alpha:80") {
		t.Errorf("the endpoints of beta:\n%s", s)
	}
	m.press("esc", "/", "a", "l", "p", "enter")
	if s := m.screen(); !strings.Contains(s, "alpha") || strings.Contains(s, "beta") {
		t.Errorf("filtered:\n%s", s)
	}
	m.press("esc")
	if s := m.screen(); !strings.Contains(s, "beta") {
		t.Errorf("the filter stays:\n%s", s)
	}
}

func TestTopKeepsTheLastFiguresWhenTheGatewayIsGone(t *testing.T) {
	m := screenOf(route("alpha", 9, 0))
	m.Update(looked{err: errors.New("connection refused")})
	if s := m.screen(); !strings.Contains(s, "alpha") || !strings.Contains(s, "connection refused") {
		t.Errorf("after a failed look:\n%s", s)
	}
	fresh := &topModel{}
	if _, cmd := fresh.Update(looked{err: errors.New("connection refused")}); cmd == nil || fresh.fatal == nil {
		t.Error("a gateway that was never there does not end the program")
	}
}

func TestTopFitsTheScreen(t *testing.T) {
	var many []gateway.RouteStatus
	for i := range 100 {
		many = append(many, route(fmt.Sprintf("route%03d", i), float64(1000-i), 0))
	}
	m := screenOf(many...)
	for range 60 {
		m.press("down")
	}
	s := m.screen()
	if n := strings.Count(s, "\n"); n > 20 {
		t.Errorf("%d lines on a screen of 20:\n%s", n, s)
	}
	if !strings.Contains(s, "route060") {
		t.Errorf("the chosen route is not in sight:\n%s", s)
	}
}
