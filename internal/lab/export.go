package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

// How spans leave: a batch goes when it is full or this old.
const (
	spanQueue  = 8192
	spanBatch  = 512
	spanLinger = 200 * time.Millisecond
)

// exporter posts spans to the receiver in batches. Spans that find the queue full, or whose batch is not accepted,
// are dropped and counted: telemetry never slows the services down.
type exporter struct {
	url     atomic.Pointer[string]
	queue   chan trace.Span
	client  *http.Client
	dropped atomic.Uint64
	sent    atomic.Uint64
}

func newExporter(url string) *exporter {
	e := &exporter{
		queue:  make(chan trace.Span, spanQueue),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 5 * time.Second},
	}
	e.url.Store(&url)
	return e
}

// add never blocks. Without a receiver it does nothing.
func (e *exporter) add(s trace.Span) {
	if *e.url.Load() == "" {
		return
	}
	select {
	case e.queue <- s:
	default:
		e.dropped.Add(1)
	}
}

// run posts until ctx ends, and then what is still queued.
func (e *exporter) run(ctx context.Context) {
	defer e.client.CloseIdleConnections()
	tick := time.NewTicker(spanLinger)
	defer tick.Stop()
	batch := make([]trace.Span, 0, spanBatch)
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) < spanBatch {
				continue
			}
		case <-tick.C:
		case <-ctx.Done():
			e.flush(batch)
			return
		}
		e.post(batch)
		batch = batch[:0]
	}
}

// flush sends what is left, when nothing fills the queue any more. It gives up at the first batch that is not
// accepted, so that a receiver that hangs holds up the end by one timeout and not by one for each batch.
func (e *exporter) flush(batch []trace.Span) {
	for accepted := true; ; batch = batch[:0] {
		for len(batch) < spanBatch && len(e.queue) > 0 {
			batch = append(batch, <-e.queue)
		}
		if len(batch) == 0 {
			return
		}
		if accepted {
			accepted = e.post(batch)
		} else {
			e.dropped.Add(uint64(len(batch)))
		}
	}
}

// post sends batch and counts it. The client's timeout bounds it.
func (e *exporter) post(batch []trace.Span) (accepted bool) {
	if len(batch) == 0 {
		return true
	}
	if err := e.send(context.Background(), ingest.EncodeOTLP(batch)); err != nil {
		e.dropped.Add(uint64(len(batch)))
		return false
	}
	e.sent.Add(uint64(len(batch)))
	return true
}

func (e *exporter) send(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, *e.url.Load(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("lab: export: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := e.client.Do(request)
	if err != nil {
		return fmt.Errorf("lab: export: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("lab: export: the receiver answered %s; want 200", response.Status)
	}
	return nil
}
