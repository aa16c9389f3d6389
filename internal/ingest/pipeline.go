package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/longpole/longpole/internal/trace"
)

// A batch is what protobuf messages that follow each other were decoded to.
type batch struct {
	spans  [][]trace.Span // in pieces
	logs   []trace.Log
	sink   logSink
	bytes  int64
	counts counts
	err    error
	done   chan struct{}
}

// raw is the messages of a batch as they were read.
type raw struct {
	data  bytes.Buffer
	parts []part
}

// A part is one message: where it ends in the data, and where it stood in the file.
type part struct {
	end   int
	at    int64
	whole bool // a whole message, or a JSON document in the place of one; not one ResourceSpans
}

const batchBytes = 256 << 10

// A worker reads and decodes batches on one goroutine. What it reads goes to memory that no other processor has at hand: handing it
// over costs more than decoding a tenth of it.
type worker struct {
	raw
	decoder *decoder
	room    room
}

// A pipeline reads and decodes batches on several goroutines, of which one at a time reads, and gives them back in the order in which
// they stood.
type pipeline struct {
	workers []*worker             // the first is the caller's
	take    func(*batch) error    // gets the batches, on the caller's goroutine; an error ends the reading
	mu      sync.Mutex            // of what follows, and of what is read from
	taken   sync.Cond             // there is room in waiting, or this is the end
	waiting []*batch              // in order
	fill    func(into *raw) error // reads messages until there is a batch of them; an error says that there are no more
	end     error                 // of fill or of take; nil = there may be more
}

// newPipeline is for so many goroutines, the caller's included.
func newPipeline(workers int, take func(*batch) error) *pipeline {
	p := &pipeline{take: take}
	p.taken.L = &p.mu
	for range workers {
		p.workers = append(p.workers, &worker{decoder: newDecoder(nil)})
	}
	return p
}

// run reads all that fill finds. It returns why there is no more, nil for errEnd.
func (p *pipeline) run(fill func(into *raw) error) error {
	p.fill, p.end = fill, nil
	var wg sync.WaitGroup
	for _, w := range p.workers[1:] {
		wg.Go(func() {
			for p.step(w, true) {
			}
		})
	}
	for p.step(p.workers[0], false) {
		p.receive(false)
	}
	p.receive(true)
	wg.Wait()
	p.fill = nil
	if errors.Is(p.end, errEnd) {
		return nil
	}
	return p.end
}

// most is how many batches may be under way.
func (p *pipeline) most() int { return 4 * len(p.workers) }

// step reads a batch and decodes it; false = there are no more. Who does not take batches waits until there is room for one.
func (p *pipeline) step(w *worker, patient bool) bool {
	p.mu.Lock()
	for patient && p.end == nil && len(p.waiting) >= p.most() {
		p.taken.Wait()
	}
	w.data.Reset()
	w.parts = w.parts[:0]
	if w.data.Cap() > 4*batchBytes {
		w.data = bytes.Buffer{}
	}
	if p.end == nil {
		p.stop(p.fill(&w.raw))
	}
	if len(w.parts) == 0 {
		p.mu.Unlock()
		return false
	}
	b := &batch{done: make(chan struct{})}
	p.waiting = append(p.waiting, b)
	p.mu.Unlock()
	w.decoder.batch(b, &w.raw, &w.room)
	close(b.done)
	return true
}

// stop ends the reading if there is an error. The caller holds the lock.
func (p *pipeline) stop(err error) {
	if err != nil && p.end == nil {
		p.end = err
		p.taken.Broadcast()
	}
}

// receive takes the first batches, as far as they are done or there is no room for more; or all.
func (p *pipeline) receive(all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) > 0 {
		b := p.waiting[0]
		if !all && len(p.waiting) < p.most() && !b.isDone() {
			return
		}
		p.mu.Unlock()
		<-b.done
		err := p.take(b)
		p.mu.Lock()
		p.waiting = p.waiting[1:]
		p.stop(err)
		p.taken.Signal()
	}
}

// isDone reports whether b is decoded.
func (b *batch) isDone() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// A room is memory for spans, which batches take by the piece, as how many spans they have shows only in the end.
type room struct {
	spans []trace.Span
	from  int // what stands before belongs to earlier batches
}

// add takes a span of b.
func (r *room) add(b *batch, s *trace.Span) {
	if len(r.spans) == cap(r.spans) {
		r.give(b)
		r.spans, r.from = make([]trace.Span, 0, chunkSpans), 0
	}
	r.spans = append(r.spans, *s)
}

// give gives b the spans that were added.
func (r *room) give(b *batch) {
	if to := len(r.spans); to > r.from {
		b.spans = append(b.spans, r.spans[r.from:to:to])
		r.from = to
	}
}

// batch decodes messages to b. At the first fault it stops.
func (d *decoder) batch(b *batch, from *raw, r *room) {
	d.counts, d.size = counts{}, 0
	d.emit = func(s trace.Span) { r.add(b, &s) }
	b.sink = logSink{least: trace.SeverityWarn, emit: func(l trace.Log) { b.logs = append(b.logs, l) }}
	d.logs = &b.sink
	at := 0
	for _, p := range from.parts {
		message := from.data.Bytes()[at:p.end]
		at = p.end
		var err error
		switch {
		case !p.whole:
			err = d.telemetry(message)
		case firstByte(message) == '{' && looksLikeText(message):
			err = d.otlpJSON(message)
		default:
			err = messages(message, 1, d.telemetry)
		}
		if err != nil {
			b.err = fmt.Errorf("OTLP protobuf: byte %d: %w", p.at, err)
			break
		}
	}
	r.give(b)
	d.drop(mark{})
	b.counts, b.bytes = d.counts, d.size
}
