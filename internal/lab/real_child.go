package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longpole/longpole/internal/scenario"
)

// How long processes are given.
const (
	beginTime = 30 * time.Second // to come up, on a machine that is busy
	callTime  = 5 * time.Second  // to answer
	endTime   = 5 * time.Second  // to go, before they are killed
)

// child is the place of one process of a system: a process runs there, or for the time of a fault none does.
type child struct {
	sys *System

	mu      sync.Mutex
	is      Assignment // Address from the first start on, so that a process that is started again is where it was
	process *running   // nil = none runs
	stopper *stopper   // nil = it does not stand still; else it answers nothing
	behind  bool       // a phase began while it stood still
}

// running is one process.
type running struct {
	cmd   *exec.Cmd
	calls *rpc.Client // its end ends the process
	said  tail
	ended chan struct{} // closed when it is gone
	meant bool          // that it ends; guarded by the child's mu
}

func newChild(s *System, a Assignment) *child { return &child{sys: s, is: a} }

// name is what messages call the process.
func (c *child) name() string {
	if c.is.Queue != "" {
		return "the workers of " + c.is.Queue
	}
	return instanceName(c.is.Service, c.is.Replica)
}

// start runs a process and gives it its assignment.
func (c *child) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.sys.real
	p, err := run(r.with.Program)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	c.process = p
	go c.watch(p) // ends with the process, which stop ends
	a := c.is
	a.Scenario, a.Seed, a.Site = c.sys.spec, r.seed, r.site
	var url string
	if err := p.call(ctx, beginTime, "Begin", a, &url); err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	c.is.Address = strings.TrimPrefix(url, "http://")
	return nil
}

// run starts a program as a child that talks to us on its standard input and output. It has a group of its own, so that an
// interrupt that is typed goes to us alone; and it is bound to no context, because it ends when its input does, which the
// kernel sees to when we are killed.
func run(program []string) (*running, error) {
	p := &running{cmd: exec.Command(program[0], program[1:]...), ended: make(chan struct{})} //nolint:noctx // see above
	p.cmd.Args[0] = os.Args[0]                                                               // a program that is several, by its name, stays the one that it is
	p.cmd.SysProcAttr, p.cmd.Stderr = &syscall.SysProcAttr{Setpgid: true}, &p.said
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.calls = rpc.NewClientWithCodec(jsonrpc.NewClientCodec(pipes{out, in}))
	return p, nil
}

// watch waits for the end of a process, and reports one that nobody wanted.
func (c *child) watch(p *running) {
	_ = p.cmd.Wait() // how it ended is in its state
	close(p.ended)
	c.mu.Lock()
	meant := p.meant
	c.mu.Unlock()
	if !meant {
		select {
		case c.sys.real.lost <- fmt.Errorf("lab: the process of %s ended by itself, with %s: %s", c.name(), p.cmd.ProcessState, p.said.String()):
		default: // one is enough
		}
	}
}

// call asks a process for something.
func (p *running) call(ctx context.Context, within time.Duration, method string, args, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	done := p.calls.Go(partName+"."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case x := <-done.Done:
		if _, answered := errors.AsType[rpc.ServerError](x.Error); answered || x.Error == nil {
			return x.Error
		}
		select { // it is gone, and what it said last is there in a moment
		case <-p.ended:
		case <-ctx.Done():
		}
		return fmt.Errorf("%w: %s", x.Error, p.said.String())
	case <-ctx.Done():
		return fmt.Errorf("no answer to %s: %w", method, context.Cause(ctx))
	}
}

// ask calls the process that runs; none does, or it stands still: nothing is asked, and it is false.
func (c *child) ask(ctx context.Context, method string, args, reply any) (bool, error) {
	c.mu.Lock()
	p, stopper := c.process, c.stopper
	c.mu.Unlock()
	if p == nil || stopper != nil {
		return false, nil
	}
	if err := p.call(ctx, callTime, method, args, reply); err != nil {
		return false, fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	return true, nil
}

// kill ends the process at once, as a crash does.
func (c *child) kill() {
	c.mu.Lock()
	p := c.process
	if p != nil {
		p.meant, c.process = true, nil
	}
	c.mu.Unlock()
	if p != nil {
		_ = p.cmd.Process.Kill() // it may be gone already
		<-p.ended
		_ = p.calls.Close()
	}
	_ = c.goOn() // there is nothing left to go on
}

// stop lets the process send what it has and end, or kills it when that takes too long.
func (c *child) stop() {
	c.mu.Lock()
	p := c.process
	if p != nil {
		p.meant = true
	}
	c.mu.Unlock()
	if p == nil {
		return
	}
	_ = c.goOn()        // or it is killed in a moment
	_ = p.calls.Close() // and with it the input of the process
	select {
	case <-p.ended:
	case <-time.After(endTime):
	}
	c.kill()
}

// stopper is a shell that has stopped a process, and lets it go on when its input ends: also when nobody is left to say so.
type stopper struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

const stopScript = `PATH=$PATH:/usr/bin:/bin
kill -s STOP "$1" && echo stopped
cat >/dev/null
kill -s CONT "$1"
`

// halt makes the process stand still.
func (c *child) halt() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil || c.stopper != nil {
		return nil
	}
	s := &stopper{cmd: exec.Command("/bin/sh", "-c", stopScript, "longpole-stopper", strconv.Itoa(c.process.cmd.Process.Pid))} //nolint:noctx // it ends with its input
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	s.pipe, c.stopper = in, s
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("lab: %s cannot be stopped: %w", c.name(), err)
	}
	return nil
}

// goOn lets a process that stands still go on.
func (c *child) goOn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stopper
	if s == nil {
		return nil
	}
	c.stopper = nil
	if err := errors.Join(s.pipe.Close(), s.cmd.Wait()); err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	behind, p := c.behind, c.process
	c.behind = false
	if !behind || p == nil || p.meant {
		return nil
	}
	if err := p.call(context.Background(), callTime, "Reset", true, new(bool)); err != nil {
		return fmt.Errorf("lab: %s: %w", c.name(), err)
	}
	return nil
}

// again starts a process in the place of one that was killed. It is new and knows nothing.
func (c *child) again(ctx context.Context) error {
	c.mu.Lock()
	there := c.process != nil
	if !there {
		c.is.Life++
	}
	c.mu.Unlock()
	if there {
		return nil
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	_, err := c.ask(ctx, "Connect", c.sys.real.wiring, new(bool))
	return err
}

// reset begins a phase; one that stands still begins it when it goes on.
func (c *child) reset(ctx context.Context) error {
	there, err := c.ask(ctx, "Reset", true, new(bool))
	if err == nil {
		c.mu.Lock()
		c.behind = !there && c.stopper != nil
		c.mu.Unlock()
	}
	return err
}

// struck reports whether a fault is about the process.
func (c *child) struck(f scenario.Fault) bool {
	return c.is.Queue == "" && f.Service == c.is.Service && (f.Replica == 0 || f.Replica == c.is.Replica)
}

// tail keeps the end of what a process wrote. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// maxTail bounds it.
const maxTail = 2 << 10

// Write keeps the end of data.
func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, data...)
	t.kept = t.kept[max(0, len(t.kept)-maxTail):]
	return len(data), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}
