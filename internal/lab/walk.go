package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/trace"
)

// walk goes through the steps of one request.
type walk struct {
	node    *node
	request request
	cold    bool // the process is new
}

func (x *walk) steps(ctx context.Context, at *span, steps []scenario.Step) error {
	for i := range steps {
		if err := x.node.halt.wait(ctx); err != nil {
			return err
		}
		if err := x.step(ctx, at, &steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (x *walk) step(ctx context.Context, at *span, s *scenario.Step) error {
	switch {
	case s.CPU != nil:
		return x.within(at, s.Name, func() error { return x.compute(ctx, x.node.random.draw(*s.CPU), s.Name) })
	case s.Sleep != nil:
		return x.within(at, s.Name, func() error { return x.node.sleep(ctx, x.node.random.draw(*s.Sleep)) })
	case s.Lock != nil:
		return x.within(at, s.Name, func() error { return x.lock(ctx, s) })
	case s.Allocate > 0:
		x.node.allocate(s.Allocate, x.function(s.Name))
		return x.node.halt.wait(ctx)
	case s.Call != nil:
		return x.calls(ctx, at, s.Call)
	case s.Query != nil:
		return x.queries(ctx, at, s.Query)
	case s.Publish != nil:
		if x.node.random.chance(s.Publish.Share) {
			x.publish(at, s.Publish.Queue)
		}
		return nil
	}
	return x.parallel(ctx, at, s.Parallel)
}

// parallel starts all calls and queries together, each of those that are repeated too.
func (x *walk) parallel(ctx context.Context, at *span, steps []scenario.Step) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range steps {
		call, query := steps[i].Call, steps[i].Query
		switch {
		case call != nil && x.node.random.chance(call.Share):
			for k := range call.Repeat {
				g.Go(func() error { return x.one(ctx, at, call, k) })
			}
		case query != nil && x.node.random.chance(query.Share):
			for k := range query.Repeat {
				g.Go(func() error { return x.ask(ctx, at, query, k) })
			}
		}
	}
	return g.Wait()
}

// within does do in an INTERNAL span of that name, or with "" in none.
func (x *walk) within(at *span, name string, do func() error) error {
	if name == "" {
		return do()
	}
	inner := x.node.begin(at.identity(), trace.Internal, name)
	defer inner.end()
	return do()
}

// function is what a profile calls a piece of work.
func (x *walk) function(name string) string {
	if name == "" {
		name = "work"
	}
	return x.node.spec.Name + "." + strings.ReplaceAll(x.request.operation, "-", "_") + "." + strings.ReplaceAll(name, " ", "_")
}

func (x *walk) compute(ctx context.Context, d time.Duration, name string) error {
	if f := x.node.hit(scenario.Burn, x.request.operation); f != nil {
		d = time.Duration(float64(d) * f.Factor)
	}
	if x.cold {
		d = time.Duration(float64(d) * x.node.spec.ColdFactor)
	}
	return x.node.compute(ctx, d, x.function(name))
}

// lock takes a mutex of the process and computes while it holds it.
func (x *walk) lock(ctx context.Context, s *scenario.Step) error {
	m := x.node.mutex(s.Lock.Mutex)
	waited, err := m.enter(ctx)
	x.node.meter.contended(s.Lock.Mutex, waited)
	if err != nil {
		return err
	}
	defer m.leave()
	return x.compute(ctx, x.node.random.draw(s.Lock.Hold), s.Lock.Mutex)
}

func (x *walk) calls(ctx context.Context, at *span, c *scenario.Call) error {
	if !x.node.random.chance(c.Share) {
		return nil
	}
	for i := range c.Repeat {
		if err := x.one(ctx, at, c, i); err != nil {
			return err
		}
	}
	return nil
}

// key is what the i-th of repeated calls or statements is about: each request has things of its own.
func (x *walk) key(fixed bool, repeat, i int) int {
	if fixed {
		return i
	}
	return x.request.key*repeat + i
}

// one is one of the calls of a step, whatever its attempts.
func (x *walk) one(ctx context.Context, at *span, c *scenario.Call, i int) error {
	key := x.key(c.Fixed, c.Repeat, i)
	_, operation, _ := strings.Cut(c.To, ".")
	err := x.through(ctx, at, c.Cache, fmt.Sprintf("%s:%d", operation, key), func() error { return x.attempts(ctx, at, c, key) })
	if err != nil && c.Ignore && ctx.Err() == nil {
		return nil
	}
	return err
}

// through asks a cache first, and fills it.
func (x *walk) through(ctx context.Context, at *span, l *scenario.Lookup, key string, get func() error) error {
	if l == nil {
		return get()
	}
	c := x.node.sys.caches[l.In]
	hit, err := x.command(ctx, at, c, "GET", key, func() bool { return c.get(key) })
	if err != nil || hit {
		return err
	}
	if err := get(); err != nil {
		return err
	}
	_, err = x.command(ctx, at, c, "SET", key, func() bool { c.put(key, l.TTL); return true })
	return err
}

// command is one round trip to a cache, in its span.
func (x *walk) command(ctx context.Context, at *span, c *cacheServer, verb, key string, do func() bool) (bool, error) {
	s := x.node.begin(at.identity(), trace.Client, verb)
	defer s.end()
	s.set("db.system.name", "redis").set("db.operation.name", verb).set("db.query.text", verb+" "+key).set("server.address", c.spec.Name).set("server.port", "6379")
	if err := c.serve(ctx, key); err != nil {
		s.fail("canceled")
		return false, err
	}
	return do(), nil
}

// attempts makes a call and, when it fails, tries again.
func (x *walk) attempts(ctx context.Context, at *span, c *scenario.Call, key int) error {
	var err error
	for try := range c.Retries + 1 {
		if err = x.call(ctx, at, c, key, try); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// call is one attempt, in its CLIENT span.
func (x *walk) call(ctx context.Context, at *span, c *scenario.Call, key, try int) error {
	service, operation, _ := strings.Cut(c.To, ".")
	path := "/" + service + "/" + operation
	s := x.node.begin(at.identity(), trace.Client, "GET "+path)
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.node.sys.target(service)+path+"?key="+strconv.Itoa(key), nil)
	if err != nil {
		s.fail("url")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	r.Header.Set("Traceparent", s.identity().traceparent())
	s.set("http.request.method", r.Method).set("url.full", r.URL.String()).set("url.path", path).set("url.query", r.URL.RawQuery).
		set("url.template", path).set("server.address", service).set("server.port", r.URL.Port())
	if try > 0 {
		s.set("http.request.resend_count", strconv.Itoa(try))
	}
	answer, err := x.node.sys.client.Do(r)
	if err != nil {
		s.fail(failureOf(ctx))
		return &failure{status: statusAfter(ctx), reason: err.Error()}
	}
	defer answer.Body.Close()
	size, err := io.Copy(io.Discard, answer.Body)
	s.set("http.response.status_code", strconv.Itoa(answer.StatusCode)).set("http.response.body.size", strconv.FormatInt(size, 10))
	switch {
	case err != nil:
		s.fail(failureOf(ctx))
		return &failure{status: statusAfter(ctx), reason: err.Error()}
	case answer.StatusCode >= 400:
		s.fail(strconv.Itoa(answer.StatusCode))
		return &failure{status: http.StatusBadGateway, reason: c.To + " answered " + answer.Status}
	}
	return nil
}

// failureOf names why a call has no answer, as an SDK does.
func failureOf(ctx context.Context) string {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return "timeout"
	}
	if ctx.Err() != nil {
		return "canceled"
	}
	return "connection"
}

func statusAfter(ctx context.Context) int {
	if ctx.Err() != nil {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

func (x *walk) publish(at *span, name string) {
	q := x.node.sys.queues[name]
	s := x.node.begin(at.identity(), trace.Producer, "send "+name)
	defer s.end()
	s.set("messaging.system", "nats").set("messaging.destination.name", name).set("messaging.operation.type", "send")
	q.put(s.identity())
}

func (x *walk) queries(ctx context.Context, at *span, q *scenario.Query) error {
	if !x.node.random.chance(q.Share) {
		return nil
	}
	for i := range q.Repeat {
		if err := x.ask(ctx, at, q, i); err != nil {
			return err
		}
	}
	return nil
}

// ask is one of the statements of a step.
func (x *walk) ask(ctx context.Context, at *span, q *scenario.Query, i int) error {
	key := x.key(q.Fixed, q.Repeat, i)
	return x.through(ctx, at, q.Cache, fmt.Sprintf("%s:%d", q.Table, key), func() error { return x.query(ctx, at, q, key) })
}

// query waits for a connection, which no span shows, and runs one statement in its CLIENT span.
func (x *walk) query(ctx context.Context, at *span, q *scenario.Query, key int) error {
	p := x.node.pools[q.Store]
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	d := x.node.sys.stores[q.Store]
	verb := strings.ToUpper(q.Verb)
	s := x.node.begin(at.identity(), trace.Client, verb+" "+q.Table)
	defer s.end()
	s.set("db.system.name", d.spec.System).set("db.namespace", "lab").set("db.operation.name", verb).set("db.collection.name", q.Table).
		set("db.query.text", textOf(q)).set("db.query.parameter.0", strconv.Itoa(key)).set("server.address", d.spec.Name).set("server.port", "5432")
	if err := d.run(ctx, x.node.spec.Name, q, key); err != nil {
		s.fail("canceled")
		return err
	}
	if q.Verb == "select" {
		s.set("db.response.returned_rows", strconv.Itoa(q.Rows))
	}
	return nil
}
