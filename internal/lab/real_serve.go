package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"sync"
	"syscall"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/servers"
)

// Assignment is what one process of a system in real mode is: a replica of a service, or the workers of a queue.
type Assignment struct {
	Scenario scenario.Scenario
	Seed     uint64
	Site     Site
	Service  string
	Replica  int    // counted from 1
	Queue    string // "" = a replica of Service
	Life     int    // processes that there were in its place
	Address  string // where to listen; "" = any free port of loopback
}

// Wiring is what a process learns when all of them are there.
type Wiring struct {
	Gateway   string              // base URL
	Receiver  string              // of spans
	Endpoints map[string][]string // base URLs of each service's replicas
}

// Question asks a process for what happened since From. Healthy is the profiles of a phase without faults, by instance and
// kind; nil = there are none.
type Question struct {
	From    time.Time
	Healthy map[string]sentProfile
}

// Answer is what a process tells of itself.
type Answer struct {
	Facts    evidence.ServiceFacts
	Profiles []sentProfile
}

// sentProfile is a profile on its way: its own form in JSON is for reports, and has no stacks.
type sentProfile struct {
	Profile evidence.Profile
	Stacks  []evidence.Stack
}

func sent(p evidence.Profile) sentProfile { return sentProfile{Profile: p, Stacks: p.Stacks} }

func (s sentProfile) received() evidence.Profile {
	s.Profile.Stacks = s.Stacks
	return s.Profile
}

// part is the system as one process of it has it. Its exported methods are those that the lab calls from outside.
type part struct {
	once   sync.Once
	cancel context.CancelFunc
	ctx    context.Context // of the process
	system *System
	node   *node   // nil = it works on a queue
	queue  *stream // nil = it is a replica
	ran    chan error
}

// Serve is one process of a system in real mode: it answers the calls that come in from whoever started it, JSON-RPC, until
// in ends, then ends all that it does and returns. It returns early, and with an error, when its service breaks.
func Serve(ctx context.Context, in io.ReadCloser, out io.WriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &part{ctx: ctx, cancel: cancel, ran: make(chan error, 1)}
	calls := rpc.NewServer()
	if err := calls.RegisterName(partName, p); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	closed := make(chan struct{})
	go func() { // ends with in, which may be standard input, whose reading nothing but its end interrupts
		defer close(closed)
		calls.ServeCodec(jsonrpc.NewServerCodec(pipes{in, out}))
	}()
	select {
	case <-closed:
	case <-ctx.Done():
	case err := <-p.ran:
		return err
	}
	cancel()
	return p.end()
}

// partName is what the calls of a process are named after.
const partName = "Part"

// pipes are the two halves of a connection.
type pipes struct {
	io.ReadCloser
	io.WriteCloser
}

// Close closes both.
func (p pipes) Close() error { return errors.Join(p.ReadCloser.Close(), p.WriteCloser.Close()) }

// end waits for what Connect began, or gives back what Begin took.
func (p *part) end() error {
	if p.system == nil {
		return nil
	}
	begun := true
	p.once.Do(func() { begun = false })
	if !begun {
		p.system.Close()
		return nil
	}
	return <-p.ran
}

// Begin makes what the assignment says and tells where it listens; "" for the workers of a queue.
func (p *part) Begin(a Assignment, address *string) error {
	s := newSystem(a.Scenario)
	if err := s.describe(a.Site, a, a.Seed); err != nil {
		return err
	}
	if a.Queue == "" {
		n := newNode(s, s.spec.Service(a.Service), a.Replica, a.Seed)
		if a.Life > 0 {
			n.lives.Store(int64(a.Life))
			n.renew()
			n.served.Store(0)
			n.meter.began()
		}
		l, err := listenAt(p.ctx, a.Address)
		if err != nil {
			return err
		}
		n.listener, p.node = l, n
		s.nodes[a.Service] = []*node{n}
	} else {
		p.queue, _ = s.queues[a.Queue].(*stream)
	}
	if err := s.Start(p.ctx); err != nil {
		return err
	}
	p.system = s
	if p.node != nil {
		*address = p.node.url()
	}
	return nil
}

// rebindTime is for how long somebody else may have the port of a process that is started again.
const rebindTime = 3 * time.Second

// listenAt listens at an address, or with "" at any free one of loopback.
func listenAt(ctx context.Context, address string) (net.Listener, error) {
	if address == "" {
		return servers.Listen(ctx)
	}
	var lc net.ListenConfig
	for began := time.Now(); ; {
		l, err := lc.Listen(ctx, "tcp", address)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(began) > rebindTime {
			return nil, fmt.Errorf("lab: %w", err)
		}
		if err = pause(ctx, tickTime); err != nil {
			return nil, err
		}
	}
}

var errNotBegun = errors.New("lab: this process has no assignment yet")

// Connect says where the others are, and lets the process work.
func (p *part) Connect(w Wiring, _ *bool) error {
	if p.system == nil {
		return errNotBegun
	}
	p.once.Do(func() {
		p.system.peers = w.Endpoints
		p.system.Connect(w.Gateway, w.Receiver)
		go func() { p.ran <- p.system.Run(p.ctx) }() // ends with the process, which waits for it
	})
	return nil
}

// Faults says which faults are on.
func (p *part) Faults(list []scenario.Fault, _ *bool) error {
	if p.system == nil {
		return errNotBegun
	}
	p.system.planted.active.Store(&list)
	return nil
}

// Reset begins a phase: what Look tells is from now on.
func (p *part) Reset(bool, *bool) error {
	if p.node != nil {
		p.node.reset()
	}
	return nil
}

// Look tells what happened in the process.
func (p *part) Look(q Question, a *Answer) error {
	if p.node == nil {
		return nil
	}
	healthy := map[string]evidence.Profile{}
	for key, x := range q.Healthy {
		healthy[key] = x.received()
	}
	now := time.Now()
	a.Facts = p.node.facts(q.From, now, healthy)
	for _, x := range p.node.profiles(q.From, now) {
		a.Profiles = append(a.Profiles, sent(x))
	}
	return nil
}

// Staff sets how many workers a queue has.
func (p *part) Staff(n int, _ *bool) error {
	if p.queue == nil {
		return errNotBegun
	}
	return p.queue.staff(p.ctx, n)
}
