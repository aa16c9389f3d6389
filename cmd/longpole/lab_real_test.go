package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/lab"
	"github.com/longpole/longpole/internal/systemtest"
)

// markVariable is in the environment of a lab and of all that it starts.
const markVariable = "LONGPOLE_TEST_LAB"

// realLab is the program with a folder of its own for what servers leave on disk.
type realLab struct {
	t      *testing.T
	mark   string
	folder string
}

func newRealLab(t *testing.T) *realLab {
	t.Helper()
	folder, err := os.MkdirTemp("", "longpole-real-") //nolint:usetesting // that of the test is in one that is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil { // the user of PostgreSQL has its folder in there
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return &realLab{t: t, mark: markVariable + "=" + filepath.Base(folder), folder: folder}
}

func (r *realLab) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(r.t.Context(), os.Args[0])
	cmd.Args = append([]string{"longpole", "lab"}, args...) // the test's program is longpole when it is called so
	cmd.Env = append(os.Environ(), "TMPDIR="+r.folder, r.mark)
	return cmd
}

// services are the process IDs of its services.
func (r *realLab) services() (all []string) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range list {
		environment, _ := os.ReadFile(filepath.Join(name, "environ"))
		words, _ := os.ReadFile(filepath.Join(name, "cmdline"))
		if bytes.Contains(environment, []byte(r.mark)) && bytes.HasPrefix(words, []byte("longpole\x00lab\x00service")) {
			all = append(all, filepath.Base(name))
		}
	}
	return all
}

// processes are those that the lab started and that are still there, and itself. A server that writes its title over its
// environment is known by the folder that it works in.
func (r *realLab) processes() (all []string) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range list {
		environment, _ := os.ReadFile(filepath.Join(name, "environ"))
		folder, _ := os.Readlink(filepath.Join(name, "cwd"))
		if bytes.Contains(environment, []byte(r.mark)) || strings.HasPrefix(folder, r.folder) {
			words, _ := os.ReadFile(filepath.Join(name, "cmdline"))
			all = append(all, strings.ReplaceAll(string(words), "\x00", " "))
		}
	}
	return all
}

// left wants nothing to be left: no process and no folder.
func (r *realLab) left(after string) {
	r.t.Helper()
	var processes, folders []string
	gone := func() bool {
		processes = r.processes()
		folders, _ = filepath.Glob(filepath.Join(r.folder, "longpole-*"))
		return len(processes)+len(folders) == 0
	}
	for begin := time.Now(); !gone(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > patience {
			r.t.Fatalf("after %s these stay: processes %q, folders %q", after, processes, folders)
		}
	}
}

// scenario is one of the catalogue with shorter phases.
func (r *realLab) scenario(name string) string {
	r.t.Helper()
	data, err := os.ReadFile("../../internal/lab/catalogue/" + name + ".yaml")
	if err != nil {
		r.t.Fatal(err)
	}
	text := strings.Replace(string(data), "load:\n", "load:\n  warmup: 1s\n  duration: 6s\n", 1)
	file := filepath.Join(r.t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

// needs ends the test where a server is not installed.
func (r *realLab) needs(stderr string) {
	r.t.Helper()
	if strings.Contains(stderr, "install the package") {
		systemtest.Missing(r.t, stderr)
	}
}

func TestLabRunsOnRealServersAndLeavesNothing(t *testing.T) {
	for _, name := range []string{"missing-index", "lock-chain", "cold-cache", "cache-stampede", "few-workers", "poison-messages"} {
		t.Run(name, func(t *testing.T) {
			r := newRealLab(t)
			cmd := r.command("run", "--real", "--canary", "4s", "-o", "json", r.scenario(name))
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			r.needs(stderr.String())
			var told struct{ Outcomes []lab.Outcome }
			if bad := json.Unmarshal(stdout.Bytes(), &told); bad != nil || len(told.Outcomes) != 1 {
				t.Fatalf("%v, %v: %s%s", err, bad, stdout.String(), stderr.String())
			}
			if o := told.Outcomes[0]; o.Rank != 1 || o.Before.Calls == 0 {
				t.Errorf("%v: the truth is at rank %d of %+v", err, o.Rank, o.Named)
			}
			r.left("the run")
		})
	}
}

func TestLabChaosKillsARealServerAndBringsItBack(t *testing.T) {
	r := newRealLab(t)
	const seed = "87" // draws the crash of a database first
	cmd := r.command("chaos", "--real", "--for", "8s", "--every", "8s", "--seed", seed, "-o", "json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r.needs(stderr.String())
	if strings.Contains(stderr.String(), lab.ErrCalm.Error()) {
		t.Skip("this machine has no calm to compare with: " + stderr.String())
	}
	var told lab.ChaosReport
	if bad := json.Unmarshal(stdout.Bytes(), &told); bad != nil || len(told.Faults) != 1 {
		t.Fatalf("%v, %v: %s%s", err, bad, stdout.String(), stderr.String())
	}
	x := told.Faults[0]
	if x.Kind != lab.Crash || x.Where != "db" {
		t.Fatalf("seed %s draws %s at %s; name another one that draws the crash of a database", seed, x.Kind, x.Where)
	}
	if x.During.Errors == 0 || slices.ContainsFunc(told.Doubts, func(d string) bool { return strings.Contains(d, "servers:") }) {
		t.Errorf("while the database was dead %.3g of %d calls failed; doubts %q", x.During.Errors, x.During.Calls, told.Doubts)
	}
	r.left("the schedule")
}

const standingYAML = `
name: standing
about: one of the services stands still all the time, and one is started again and again
services:
  - {name: shop, operations: [{name: buy, steps: [{call: {to: stock.take, cache: {in: redis}}}]}]}
  - {name: stock, operations: [{name: take, steps: [{cpu: {fixed: 1ms}}]}]}
  - {name: ads, operations: [{name: pick, steps: [{cpu: {fixed: 1ms}}]}]}
caches: [{name: redis}]
gateway: [{service: shop}, {service: ads}]
load: {routes: [{to: shop.buy, rate: 5}, {to: ads.pick, rate: 5}]}
faults: [{kind: pause, service: stock, for: 10m}, {kind: restart, service: ads, for: 500ms, every: 3s}]
truth: {class: [dependency], service: [stock]}
`

func TestLabKilledLeavesNothing(t *testing.T) {
	r := newRealLab(t)
	file := filepath.Join(t.TempDir(), "standing.yaml")
	if err := os.WriteFile(file, []byte(standingYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := r.command("up", "--real", "--faults", "--admin", "127.0.0.1:0", file)
	var stderr logBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "the lab comes up", func() bool {
		select {
		case err := <-ended:
			r.needs(stderr.String())
			t.Fatalf("%v: %s", err, stderr.String())
		default:
		}
		return strings.Contains(stderr.String(), "is running")
	})
	first := r.services()
	eventually(t, "three processes of services, one of them stopped and one another than at first, and a server", func() bool {
		all, now := strings.Join(r.processes(), "\n"), r.services()
		return len(now) == 3 && !slices.Equal(now, first) && strings.Contains(all, "longpole-stopper") && strings.Contains(all, "redis-server 127.0.0.1:")
	})
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	r.left("the kill")
}

func TestLabNamesThePackageOfAServerThatIsMissing(t *testing.T) {
	r := newRealLab(t)
	cmd := r.command("run", "--real", r.scenario("cold-cache"))
	cmd.Env = append(cmd.Env, "PATH="+t.TempDir())
	text, err := cmd.CombinedOutput()
	if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != exitError || !strings.Contains(string(text), "install the package redis-server, or name a server with --redis") {
		t.Errorf("%v: %s", err, text)
	}
	r.left("the refusal")
}

func TestLabRefusesAddressesThatItCannotUse(t *testing.T) {
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "healthy", "--canary", "1s"}, "at least 3s"},
		{[]string{"run", "healthy", "--redis", "127.0.0.1:6379"}, "--redis needs --real"},
		{[]string{"run", "healthy", "--real", "--redis", "somewhere"}, "want host:port"},
		{[]string{"up", "healthy", "--real", "--nats", "127.0.0.1"}, "want nats://host:port"},
		{[]string{"run", "healthy", "--real", "--postgres", "db"}, "want postgres://user@host:port/database"},
	} {
		if code, _, text := lablong(t, x.args...); code != exitUsage || !strings.Contains(text, x.want) {
			t.Errorf("lab %v ends with %d: %s; want %d and %q", x.args, code, text, exitUsage, x.want)
		}
	}
}
