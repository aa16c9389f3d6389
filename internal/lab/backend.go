package lab

import (
	"context"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/scenario"
)

// What stands behind services: a database, a remote cache, a queue. A service does not know which one it has, that of this
// process or a real server. All methods are safe for concurrent use. The ctx of a call carries the service's span, as
// go.opentelemetry.io/otel/trace.SpanContextFromContext finds it: who sends it on, such as in a message's headers, finds it there.

// server is what all of them have in common. Its life is open, then attend, then close; close comes after attend has returned,
// and also after an open that failed.
type server interface {
	// open connects to the server, makes what the scenario describes, and fills it.
	open(ctx context.Context) error
	// attend does what goes on beside the calls until ctx ends, and then returns nil; an error ends the run.
	attend(ctx context.Context) error
	// reset begins a phase: facts tells what happens from now on. What is stored stays.
	reset(ctx context.Context) error
	// address is what spans name as the server: host and port.
	address() (host, port string)
	// close gives everything back.
	close() error
}

// database runs statements, and has the faults that databases have. A fault is on or off; to ask for what is already so does
// nothing.
type database interface {
	server
	// run executes one statement for a service about a key, and takes its answer.
	run(ctx context.Context, service string, q *scenario.Query, key int) error
	// text is the statement as a span shows it.
	text(q *scenario.Query) string
	// facts is what its catalogues tell.
	facts(ctx context.Context) (evidence.PostgresFacts, error)
	// dropIndex takes the index on a column away, or makes it again.
	dropIndex(ctx context.Context, table, column string, on bool) error
	// age makes a table's statistics old, or new again.
	age(ctx context.Context, table string, on bool) error
	// hold has an idle session keep the rows of a table locked, or ends it.
	hold(ctx context.Context, table string, on bool) error
}

// keyValue is a remote cache.
type keyValue interface {
	server
	get(ctx context.Context, key string) (hit bool, err error)
	put(ctx context.Context, key string, ttl time.Duration) error
	facts(ctx context.Context) (evidence.RedisFacts, error)
	// flush empties it.
	flush(ctx context.Context) error
}

// broker is one queue. Its attend hands messages to workers.
type broker interface {
	server
	// publish stores a message, and does not wait for its work.
	publish(ctx context.Context, m message) error
	// staff sets how many workers there are; those at work end what they began.
	staff(ctx context.Context, workers int) error
	facts(ctx context.Context) (evidence.QueueStats, error)
}

// message is what travels through a queue.
type message struct {
	Poison bool `json:"poison,omitempty"` // its work always fails
}

// handler works on one delivery of a message: worker is 1..n, ctx carries the span of who sent it. After an error the broker
// delivers the message again, up to the queue's Deliveries times in all.
type handler func(ctx context.Context, m message, worker int) error
