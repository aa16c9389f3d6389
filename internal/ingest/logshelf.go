package ingest

import (
	"strings"

	"github.com/longpole/longpole/internal/trace"
)

// A logShelf keeps the log records of files until the traces are whole: they may stand before their spans, behind them, or in
// another file. Of a trace it keeps the first 64, as an [Assembler] does. When all take too much memory, it keeps those of half of
// the traces, by a hash of the trace's ID, and so on. It is not safe for concurrent use.
type logShelf struct {
	limit  int64
	bytes  int64
	traces map[string]*shelved // by plainID
	rank   func(id string) uint64
	halved uint8 // how often half of the traces went
	pack   compactor

	taken   int // records that came
	alone   int // of them, without a trace ID
	dropped int
}

// shelved is the log records of one trace.
type shelved struct {
	id    string // as the records spell it
	logs  []trace.Log
	bytes int64
}

// What memory a log record takes without its texts, and a trace with records.
const (
	logFixed     = 128
	shelvedFixed = 160
)

func newLogShelf(limit int64) *logShelf {
	return &logShelf{limit: limit, traces: make(map[string]*shelved), rank: newSampler(0).rank, pack: compactor{texts: make(map[string]string)}}
}

// add takes a record. Its texts are copied: they stand in slabs with those of records that are not kept.
func (s *logShelf) add(l trace.Log) {
	s.taken++
	if l.TraceID == "" {
		s.alone++
		return
	}
	id := plainID(l.TraceID)
	t := s.traces[id]
	if t == nil {
		if !s.keeps(id) {
			s.dropped++
			return
		}
		t = &shelved{id: strings.Clone(l.TraceID), bytes: shelvedFixed + int64(len(l.TraceID))}
		s.bytes += t.bytes
		s.traces[plainID(t.id)] = t
	}
	if len(t.logs) >= maxLogs {
		s.dropped++
		return
	}
	l.TraceID, l.SpanID, l.Body = "", strings.Clone(l.SpanID), s.pack.text(l.Body)
	l.Service, l.Exception = s.pack.text(l.Service), s.pack.text(l.Exception)
	t.logs = append(t.logs, l)
	n := int64(logFixed + len(l.SpanID) + len(l.Body) + len(l.Exception))
	t.bytes += n
	for s.bytes += n; s.bytes > s.limit && s.halved < 64; {
		s.thin()
	}
}

// keeps reports whether the records of a trace are among those that there is room for.
func (s *logShelf) keeps(id string) bool { return s.halved == 0 || s.rank(id)>>(64-s.halved) == 0 }

// thin drops the records of half of the traces.
func (s *logShelf) thin() {
	s.halved++
	for id := range s.traces {
		if !s.keeps(id) {
			s.drop(id)
		}
	}
}

// drop forgets the records of a trace; there need be none.
func (s *logShelf) drop(traceID string) {
	if len(s.traces) == 0 {
		return
	}
	id := plainID(traceID)
	if t := s.traces[id]; t != nil {
		delete(s.traces, id)
		s.bytes -= t.bytes
		s.dropped += len(t.logs)
	}
}

// join gives each trace its records, and counts: given, of traces that are gone, of none. The shelf is empty then.
func (s *logShelf) join(traces []trace.Trace, gone func(id string) bool) (joined, dropped, alone int) {
	for i := range traces {
		if len(s.traces) == 0 {
			break
		}
		t := &traces[i]
		id := plainID(t.ID)
		own := s.traces[id]
		if own == nil {
			continue
		}
		delete(s.traces, id)
		t.Logs = own.logs
		for k := range t.Logs {
			t.Logs[k].TraceID = t.ID
		}
		joined += len(t.Logs)
	}
	dropped, alone = s.dropped, s.alone
	for _, t := range s.traces {
		if gone(t.id) {
			dropped += len(t.logs)
		} else {
			alone += len(t.logs)
		}
	}
	s.traces, s.bytes = nil, 0
	return joined, dropped, alone
}

// plainID is how a trace ID is spelled by all: Jaeger leaves out zeros in front, and some write capitals.
func plainID(id string) string {
	if plain := strings.TrimLeft(id, "0"); plain != "" {
		return strings.ToLower(plain)
	}
	return id
}

// finishLogs gives the traces their log records and closes the accounts of these.
func (r *reader) finishLogs() {
	shelf, in := r.gathered.logs, &r.input
	c := trace.LogCounts{Records: r.logs(), Minor: r.sink.minor, Invalid: r.sink.invalid}
	c.Joined, c.Dropped, c.Alone = shelf.join(in.Traces, func(id string) bool { return r.gathered.gone.has(shelf.rank(id)) })
	in.Stats.Logs = c
	switch {
	case shelf.halved > 0:
		r.warn("the log records take more than %d MiB: those of one trace in %d are kept, so that messages seem as much rarer than they are", shelf.limit>>20, uint64(1)<<min(shelf.halved, 63))
	case c.Dropped > 0:
		r.warn("%d log records were dropped: of traces that are sampled out, or more than %d of a trace", c.Dropped, maxLogs)
	}
	if c.Alone > 0 && c.Joined == 0 && len(in.Traces) > 0 {
		r.warn("none of %d log records of severity warn and above belongs to a trace that was read", c.Alone)
	}
}
