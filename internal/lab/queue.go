package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/longpole/longpole/internal/scenario"
	"github.com/longpole/longpole/internal/servers"
)

// maxMessages bounds a queue; what is more is refused, as by any stream with a bound.
const maxMessages = 100_000

// queue is one queue in a NATS server of its own, within this process: nobody else can reach it. All else is as with a server
// elsewhere.
type queue struct {
	*stream
	broker *natsserver.Server
	folder *servers.Folder
}

func newQueue(spec scenario.Queue, h handler) *queue {
	q := &queue{stream: newStream(spec, "", "embedded", works|owns)}
	q.handle = h
	return q
}

func (q *queue) open(ctx context.Context) (err error) {
	if q.folder, err = servers.NewFolder("lab-queue"); err != nil {
		return fmt.Errorf("lab: queue %s: %w", q.spec.Name, err)
	}
	q.broker, err = natsserver.NewServer(&natsserver.Options{
		ServerName: q.spec.Name, DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: q.folder.Path(),
		JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 1 << 20, // streams are in memory
	})
	if err != nil {
		return fmt.Errorf("lab: queue %s: %w", q.spec.Name, err)
	}
	q.broker.Start()
	if !q.broker.ReadyForConnections(30 * time.Second) {
		return fmt.Errorf("lab: queue %s: the embedded server did not start", q.spec.Name)
	}
	q.options = []nats.Option{nats.InProcessServer(q.broker)}
	return q.stream.open(ctx)
}

func (q *queue) address() (host, port string) { return q.spec.Name, "4222" }

func (q *queue) close() error {
	err := q.stream.close()
	if q.broker != nil {
		q.broker.Shutdown()
		q.broker.WaitForShutdown()
	}
	if q.folder != nil {
		err = errors.Join(err, q.folder.Remove())
	}
	return err
}
