package ingest

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/longpole/longpole/internal/trace"
)

// A batch is protobuf messages on their way through a decoder on another goroutine.
type batch struct {
	data   bytes.Buffer
	parts  []part
	spans  [][]trace.Span // in pieces
	logs   []trace.Log
	sink   logSink
	bytes  int64
	counts counts
	err    error
	done   chan struct{}
}

// A part is one message in a batch: where it ends in its data, and where it stood in the file.
type part struct {
	end   int
	at    int64
	whole bool // a whole message, or a JSON document in the place of one; not one ResourceSpans
}

const batchBytes = 256 << 10

// A pipeline decodes batches on goroutines and gives them back in the order in which they came. The one that calls its methods
// decodes as well, when the others have enough to do: it never waits as long as there is work, and what it has just read is at hand.
type pipeline struct {
	work    chan *batch
	waiting []*batch // in order
	most    int      // of waiting
	wg      sync.WaitGroup
	take    func(*batch)
	current *batch
	spare   []*batch
	decoder *decoder // of the calling goroutine
	room    room
}

// newPipeline starts goroutines, one less than workers; the caller calls close. take gets the batches, from the goroutine that
// calls the pipeline's methods.
func newPipeline(workers int, take func(*batch)) *pipeline {
	p := &pipeline{work: make(chan *batch, 2*(workers-1)), most: 4 * workers, take: take, decoder: newDecoder(nil)}
	for range workers - 1 {
		p.wg.Go(func() {
			d, r := newDecoder(nil), &room{}
			for b := range p.work {
				d.batch(b, r)
				close(b.done)
			}
		})
	}
	return p
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

// batch decodes what is in b. At the first fault it stops.
func (d *decoder) batch(b *batch, r *room) {
	d.counts, d.size = counts{}, 0
	d.emit = func(s trace.Span) { r.add(b, &s) }
	b.sink = logSink{least: trace.SeverityWarn, emit: func(l trace.Log) { b.logs = append(b.logs, l) }}
	d.logs = &b.sink
	from := 0
	for _, p := range b.parts {
		message := b.data.Bytes()[from:p.end]
		from = p.end
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

// open returns the batch to write the next message to; the caller then calls message.
func (p *pipeline) open() *batch {
	if p.current == nil {
		if n := len(p.spare); n > 0 {
			p.current, p.spare = p.spare[n-1], p.spare[:n-1]
		} else {
			p.current = &batch{}
		}
	}
	return p.current
}

// message ends one that was written to the current batch, and stood at that place in the file.
func (p *pipeline) message(at int64, whole bool) {
	b := p.current
	b.parts = append(b.parts, part{end: b.data.Len(), at: at, whole: whole})
	if b.data.Len() >= batchBytes {
		p.send()
	}
}

// send hands the current batch to a worker, or decodes it, and takes back what is done, waiting for it when too many are under way.
func (p *pipeline) send() {
	b := p.current
	if b == nil || len(b.parts) == 0 {
		return
	}
	p.current = nil
	b.done = make(chan struct{})
	p.waiting = append(p.waiting, b)
	select {
	case p.work <- b:
	default:
		p.decoder.batch(b, &p.room)
		close(b.done)
	}
	for len(p.waiting) > 0 && (len(p.waiting) >= p.most || p.waiting[0].isDone()) {
		p.receive()
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

// receive takes the first batch, for which it waits.
func (p *pipeline) receive() {
	b := p.waiting[0]
	p.waiting = p.waiting[1:]
	<-b.done
	p.take(b)
	if b.data.Cap() <= 4*batchBytes {
		b.data.Reset()
		p.spare = append(p.spare, &batch{data: b.data, parts: b.parts[:0]})
	}
}

// flush takes back all that is under way.
func (p *pipeline) flush() {
	p.send()
	for len(p.waiting) > 0 {
		p.receive()
	}
}

// close ends the goroutines.
func (p *pipeline) close() {
	close(p.work)
	p.wg.Wait()
}
