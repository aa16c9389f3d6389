package main

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"text/template"
	"time"
)

//go:embed peers
var peers embed.FS

// conf fills the templates of peers.
type conf struct {
	Port                      int
	Replicas                  []string
	Dir                       string
	Root                      bool
	TryMillis, DeadlineMillis int
	TwiceWorkers              int // calls that keep a replica busy, with one more each in its queue
	AtOnce, AtOnceInAll       int // calls at one replica, and at all of them, for a proxy that cannot let others wait
	Permits                   int // calls at all of them, for one that can
}

// render writes one configuration file and returns its path.
func (c conf) render(name string) (string, error) {
	t, err := template.ParseFS(peers, "peers/"+name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	if err := t.Execute(&text, c); err != nil {
		return "", err
	}
	path := filepath.Join(c.Dir, name)
	return path, os.WriteFile(path, []byte(text.String()), 0o644)
}

// process runs until it is stopped; it leads a group of its own, which ends with it.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func start(log string, command ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Dir(log), "XDG_CONFIG_HOME="+filepath.Dir(log))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is of no interest
		close(p.done)
	}()
	return p, nil
}

// waitFor returns when somebody listens at the address.
func (p *process) waitFor(ctx context.Context, address string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			end = time.Now()
		case <-time.After(50 * time.Millisecond):
		}
	}
	data, _ := os.ReadFile(p.log)
	text := strings.Join(strings.Fields(string(data)), " ")
	return fmt.Errorf("it did not start: %s", text[max(0, len(text)-300):])
}

func (p *process) stop() {
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its children too; no error if they are gone
	<-p.done
}

var lastPort atomic.Int32

// freePort returns a port that nobody listens at now, and that it has not returned before. It lies below those that the
// system gives to connections, of which there are many.
func freePort() int {
	for range 10_000 {
		port := 20_000 + int(lastPort.Add(1))%10_000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	return 0
}

// cpu is what the machine's processors have done since it started, in ticks.
type cpu struct{ idle, all float64 }

// readCPU is zero where there is no /proc/stat.
func readCPU() (c cpu) {
	data, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(data), "\n")
	for i, field := range strings.Fields(line) {
		ticks, _ := strconv.ParseFloat(field, 64)
		if i >= 1 && i <= 8 { // guest time is part of user time
			c.all += ticks
		}
		if i == 4 || i == 5 { // idle, waiting for a disk
			c.idle += ticks
		}
	}
	return c
}

// since is the share of the time since before that the processors were in use.
func (c cpu) since(before cpu) float64 {
	return 1 - (c.idle-before.idle)/max(1, c.all-before.all)
}
