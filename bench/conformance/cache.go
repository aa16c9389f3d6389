package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed score.mjs
var scoreScript []byte

// Goals of ours. They are set for the newer edition of the suite, which differs from the package in what it demands.
const (
	requiredGoal  = 150
	requiredTests = 163
	optimalGoal   = 85
)

func cacheSuite() suite {
	return suite{
		name:  "cache",
		title: "HTTP cache tests",
		about: "Mark Nottingham's http-cache-tests, each subject configured as the suite's own container configures it, counted by the suite's own scorer. " +
			"*Required*: the specification demands it. *Optimal*: a good cache would. *Check*: how it behaves, neither right nor wrong. Each test counts by itself; " +
			"with dependencies, as the suite's pages show it, a test passes only if those it builds on do. The totals include the few tests for browsers only, " +
			"which no proxy passes. Goal: 150 of 163 required, 85 of 107 optimal, by themselves, of the edition of 370 tests; the package, which is older, demands other things in places.",
		columns: []string{"required", "optimal", "check", "with dependencies: required", "optimal", "edition"},
		run:     runCache,
	}
}

// tally is one kind of tests as score.mjs counts it.
type tally struct{ Pass, Strict, All int }

func (t tally) String() string { return fmt.Sprintf("%d/%d", t.Pass, t.All) }

func runCache(ctx context.Context, e *env, s *subject) (result, error) {
	if e.cacheTests == "" {
		return result{}, errors.New("the HTTP cache tests are not installed")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cli, server := "cli.mjs", "server/server.mjs"
	if _, err := os.Stat(filepath.Join(e.cacheTests, "test-engine")); err == nil {
		cli, server = "test-engine/cli.mjs", "test-engine/server/server.mjs"
	}
	port := freePort()
	origin, err := startProcess(filepath.Join(e.work, "cache-server.log"), []string{"node", "--no-warnings", filepath.Join(e.cacheTests, server)},
		"npm_config_protocol=http", "npm_config_port="+strconv.Itoa(port), "npm_config_pidfile="+filepath.Join(e.work, "cache-server.pid"))
	if err != nil {
		return result{}, err
	}
	defer origin.stop()
	if err := origin.waitFor(ctx, local(port)); err != nil {
		return result{}, err
	}
	front, err := s.start(ctx, e, cache, local(port))
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	cmd := exec.CommandContext(ctx, "node", "--no-warnings", cli)
	cmd.Dir = e.cacheTests
	// Both names of the test's id are set: an unset one would mean the test "undefined".
	cmd.Env = append(os.Environ(), "npm_config_base=http://"+front.h1, "npm_config_id=", "npm_package_config_id=")
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("the suite's client: %w", err)
	}
	file := filepath.Join(e.work, "cache-"+s.name+".json")
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:] // what the client printed before its results
	}
	if err := os.WriteFile(file, out, 0o644); err != nil {
		return result{}, err
	}
	return scoreCache(ctx, e, file)
}

func scoreCache(ctx context.Context, e *env, file string) (result, error) {
	script := filepath.Join(e.work, "score.mjs")
	if err := os.WriteFile(script, scoreScript, 0o644); err != nil {
		return result{}, err
	}
	out, err := exec.CommandContext(ctx, "node", "--no-warnings", script, e.cacheTests, file).Output()
	if err != nil {
		return result{}, fmt.Errorf("score.mjs: %w", err)
	}
	var counts struct {
		Required, Optimal, Check tally
		Failed                   []string
	}
	if err := json.Unmarshal(out, &counts); err != nil {
		return result{}, err
	}
	r := result{Cells: []string{
		counts.Required.String(), counts.Optimal.String(), counts.Check.String(), strconv.Itoa(counts.Required.Strict), strconv.Itoa(counts.Optimal.Strict),
		edition(ctx, e.cacheTests, counts.Required.All+counts.Optimal.All+counts.Check.All),
	}}
	for _, f := range counts.Failed {
		if !strings.HasPrefix(f, "check ") {
			r.Failures = append(r.Failures, code(f))
		}
	}
	if counts.Required.All == requiredTests && (counts.Required.Pass < requiredGoal || counts.Optimal.Pass < optimalGoal) {
		r.Missed = "cache tests"
	}
	return r, nil
}

// edition names the suite's version: that of the package, or the commit of a checkout.
func edition(ctx context.Context, folder string, tests int) string {
	if data, err := os.ReadFile(filepath.Join(folder, "EDITION")); err == nil {
		return fmt.Sprintf("%s, %d tests", strings.TrimSpace(string(data)), tests)
	}
	if _, err := os.Stat(filepath.Join(folder, ".git")); err == nil {
		out, err := exec.CommandContext(ctx, "git", "-C", folder, "rev-parse", "--short", "HEAD").Output()
		if err == nil {
			return fmt.Sprintf("commit %s, %d tests", strings.TrimSpace(string(out)), tests)
		}
	}
	return fmt.Sprintf("%d tests", tests)
}
