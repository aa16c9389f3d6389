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

	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/longpole/longpole/internal/scenario"
)

// walk goes through the steps of one request.
type walk struct {
	node    *node
	request request
	cold    bool // the process is new
}

func (x *walk) steps(ctx context.Context, steps []scenario.Step) error {
	for i := range steps {
		if err := x.node.halt.wait(ctx); err != nil {
			return err
		}
		if err := x.step(ctx, &steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (x *walk) step(ctx context.Context, s *scenario.Step) error {
	switch {
	case s.CPU != nil:
		return x.within(ctx, s.Name, func(ctx context.Context) error { return x.compute(ctx, x.node.random.draw(*s.CPU), s.Name) })
	case s.Sleep != nil:
		return x.within(ctx, s.Name, func(ctx context.Context) error { return x.node.sleep(ctx, x.node.random.draw(*s.Sleep)) })
	case s.Lock != nil:
		return x.within(ctx, s.Name, func(ctx context.Context) error { return x.lock(ctx, s) })
	case s.Allocate > 0:
		x.node.allocate(s.Allocate, x.function(s.Name))
		return x.node.halt.wait(ctx)
	case s.Call != nil:
		return x.calls(ctx, s.Call)
	case s.Query != nil:
		return x.queries(ctx, s.Query)
	case s.Publish != nil:
		if x.node.random.chance(s.Publish.Share) {
			return x.publish(ctx, s.Publish.Queue)
		}
		return nil
	}
	return x.parallel(ctx, s.Parallel)
}

// parallel starts all calls and queries together, each of those that are repeated too.
func (x *walk) parallel(ctx context.Context, steps []scenario.Step) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range steps {
		call, query := steps[i].Call, steps[i].Query
		switch {
		case call != nil && x.node.random.chance(call.Share):
			for k := range call.Repeat {
				g.Go(func() error { return x.one(ctx, call, k) })
			}
		case query != nil && x.node.random.chance(query.Share):
			for k := range query.Repeat {
				g.Go(func() error { return x.ask(ctx, query, k) })
			}
		}
	}
	return g.Wait()
}

// within does do in an INTERNAL span of that name, or with "" in none.
func (x *walk) within(ctx context.Context, name string, do func(context.Context) error) error {
	if name == "" {
		return do(ctx)
	}
	ctx, inner := x.node.begin(ctx, trace.SpanKindInternal, name)
	defer inner.end()
	return do(ctx)
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

func (x *walk) calls(ctx context.Context, c *scenario.Call) error {
	if !x.node.random.chance(c.Share) {
		return nil
	}
	for i := range c.Repeat {
		if err := x.one(ctx, c, i); err != nil {
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
func (x *walk) one(ctx context.Context, c *scenario.Call, i int) error {
	key := x.key(c.Fixed, c.Repeat, i)
	err := x.through(ctx, c.Cache, itemOf(c, key), func() error { return x.attempts(ctx, c, key) })
	if err != nil && c.Ignore && ctx.Err() == nil {
		return nil
	}
	return err
}

// itemOf and rowsOf name what a cache keeps: what one call or one statement gives.
func itemOf(c *scenario.Call, key int) string { return fmt.Sprintf("%s:%d", c.To, key) }

func rowsOf(q *scenario.Query, key int) string {
	return fmt.Sprintf("%s.%s.%s:%d", q.Store, q.Table, q.Where, key)
}

// through asks a cache first, and fills it. A cache that fails is one that has nothing: its span tells, and the request goes on.
func (x *walk) through(ctx context.Context, l *scenario.Lookup, key string, get func() error) error {
	if l == nil {
		return get()
	}
	c := x.node.sys.caches[l.In]
	var hit bool
	err := x.command(ctx, c, "GET", key, func(ctx context.Context) (err error) { hit, err = c.get(ctx, key); return err })
	if hit || ctx.Err() != nil {
		return err
	}
	if err := get(); err != nil || ctx.Err() != nil {
		return err
	}
	_ = x.command(ctx, c, "SET", key, func(ctx context.Context) error { return c.put(ctx, key, l.TTL) }) // as above
	return nil
}

// command is one round trip to a cache, in its span.
func (x *walk) command(ctx context.Context, c keyValue, verb, key string, do func(context.Context) error) error {
	ctx, s := x.node.begin(ctx, trace.SpanKindClient, verb)
	defer s.end()
	s.set(semconv.DBSystemNameRedis, semconv.DBOperationName(verb), semconv.DBQueryText(verb+" "+key)).at(c.address())
	err := do(ctx)
	if err != nil {
		s.fail(brokenBy(ctx))
	}
	return err
}

// attempts makes a call and, when it fails, tries again.
func (x *walk) attempts(ctx context.Context, c *scenario.Call, key int) error {
	call := x.call
	if service, _, _ := strings.Cut(c.To, "."); x.node.sys.spec.Service(service).Protocol == scenario.GRPC {
		call = x.callGRPC
	}
	var err error
	for try := range c.Retries + 1 {
		if err = call(ctx, c, key, try); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// call is one attempt over HTTP, in its CLIENT span.
func (x *walk) call(ctx context.Context, c *scenario.Call, key, try int) error {
	service, operation, _ := strings.Cut(c.To, ".")
	path := "/" + service + "/" + operation
	ctx, s := x.node.begin(ctx, trace.SpanKindClient, "GET "+path)
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.node.sys.target(service)+path+"?key="+strconv.Itoa(key), nil)
	if err != nil {
		s.fail("url")
		return &failure{status: http.StatusBadGateway, reason: err.Error()}
	}
	wire.Inject(ctx, propagation.HeaderCarrier(r.Header))
	s.set(semconv.HTTPRequestMethodGet, semconv.URLFull(r.URL.String()), semconv.URLPath(path), semconv.URLQuery(r.URL.RawQuery), semconv.URLTemplate(path)).
		at(service, r.URL.Port())
	if try > 0 {
		s.set(semconv.HTTPRequestResendCount(try))
	}
	answer, err := x.node.sys.client.Do(r)
	if err != nil {
		s.fail(failureOf(ctx))
		return &failure{status: statusAfter(ctx), reason: err.Error()}
	}
	defer answer.Body.Close()
	size, err := io.Copy(io.Discard, answer.Body)
	s.set(semconv.HTTPResponseStatusCode(answer.StatusCode), semconv.HTTPResponseBodySize(int(size)))
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

// brokenBy names why a statement or a command has no answer.
func brokenBy(ctx context.Context) string {
	if ctx.Err() != nil {
		return "canceled"
	}
	return "server"
}

func (x *walk) publish(ctx context.Context, name string) error {
	q := x.node.sys.queues[name]
	ctx, s := x.node.begin(ctx, trace.SpanKindProducer, "send "+name)
	defer s.end()
	s.set(messagingSystem, semconv.MessagingDestinationName(name), semconv.MessagingOperationTypeSend)
	err := q.publish(ctx, message{Poison: x.node.random.chance(x.node.sys.spec.Queue(name).Poison)})
	if err != nil {
		s.fail(brokenBy(ctx))
	}
	return err
}

func (x *walk) queries(ctx context.Context, q *scenario.Query) error {
	if !x.node.random.chance(q.Share) {
		return nil
	}
	for i := range q.Repeat {
		if err := x.ask(ctx, q, i); err != nil {
			return err
		}
	}
	return nil
}

// ask is one of the statements of a step.
func (x *walk) ask(ctx context.Context, q *scenario.Query, i int) error {
	key := x.key(q.Fixed, q.Repeat, i)
	return x.through(ctx, q.Cache, rowsOf(q, key), func() error { return x.query(ctx, q, key) })
}

// query waits for a connection, which no span shows, and runs one statement in its CLIENT span.
func (x *walk) query(ctx context.Context, q *scenario.Query, key int) error {
	p := x.node.pools[q.Store]
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	d := x.node.sys.stores[q.Store]
	verb := strings.ToUpper(q.Verb)
	ctx, s := x.node.begin(ctx, trace.SpanKindClient, verb+" "+q.Table)
	defer s.end()
	s.set(semconv.DBSystemNameKey.String(x.node.sys.spec.Store(q.Store).System), semconv.DBNamespace("lab"), semconv.DBOperationName(verb),
		semconv.DBCollectionName(q.Table), semconv.DBQueryText(d.text(q)), semconv.DBQueryParameter("0", strconv.Itoa(key))).at(d.address())
	if err := d.run(ctx, x.node.spec.Name, q, key); err != nil {
		s.fail(brokenBy(ctx))
		return err
	}
	if q.Verb == "select" {
		s.set(semconv.DBResponseReturnedRows(q.Rows))
	}
	return nil
}
