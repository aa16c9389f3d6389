package lab

import (
	"context"
	"errors"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/longpole/longpole/internal/scenario"
)

// errPoison is what a message that always fails ends with.
var errPoison = errors.New("lab: the message is malformed")

// worker is what a queue's workers do with a message: its work, in a CONSUMER span. Each worker is a process of its own.
func (s *System) worker(q scenario.Queue, seed uint64) handler {
	random := newDice(seed, q.Name)
	var processes []*process
	for i := range max(q.Workers, 1) {
		name := instanceName(q.Service, i+1)
		processes = append(processes, newProcess(s.spans, q.Service, name, name))
	}
	return func(ctx context.Context, m message, worker int) error {
		ctx, x := processes[(worker-1)%len(processes)].begin(ctx, trace.SpanKindConsumer, "process "+q.Name, 0)
		defer x.end()
		x.set(messagingSystem, semconv.MessagingDestinationName(q.Name), semconv.MessagingOperationTypeProcess)
		if err := pause(ctx, random.draw(q.Work)); err != nil {
			return err // the run ends
		}
		if m.Poison {
			x.set(semconv.ExceptionType("MalformedMessage")).fail("MalformedMessage")
			return errPoison
		}
		return nil
	}
}
