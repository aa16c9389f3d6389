package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

// maxBatch bounds what a file of traces may hold when it is unpacked. Keep writes far less at once.
const maxBatch = 512 << 20

// Kept is a trace with what it is found by.
type Kept struct {
	Route  string // as the trace's root names it
	Failed bool
	Trace  trace.Trace
}

// Keep writes traces, with their logs, to disk as one batch: all or none are there when it returns. Identifiers that are no hexadecimal
// numbers of 16 and 8 bytes come back as such numbers, the same wherever they occur. Keep a few hundred traces at a time;
// a batch goes as a whole.
func (s *Store) Keep(ctx context.Context, now time.Time, list ...Kept) error {
	if len(list) == 0 {
		return nil
	}
	traces := make([]trace.Trace, len(list))
	for i := range list {
		traces[i] = list[i].Trace
	}
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	message := ingest.EncodeTraces(traces)
	if len(message) > maxBatch {
		return fmt.Errorf("store: %d traces take %d bytes; want at most %d at a time", len(list), len(message), maxBatch)
	}
	blob := packer.EncodeAll(message, nil)
	_ = packer.Close()
	return s.change(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "INSERT INTO batches (at, bytes) VALUES (?, ?)", now.UnixNano(), len(blob))
		if err != nil {
			return err
		}
		batch, err := r.LastInsertId()
		if err != nil {
			return err
		}
		for i := range list {
			if err := index(ctx, tx, batch, &list[i]); err != nil {
				return err
			}
		}
		// The file is there before the index says so; what a crash leaves between the two, sweep removes.
		return writeFile(s.batchFile(batch), blob)
	})
}

func index(ctx context.Context, tx *sql.Tx, batch int64, k *Kept) error {
	spans := k.Trace.Spans
	if len(spans) == 0 {
		return nil
	}
	start, end := spans[0].Start, spans[0].End
	for i := range spans {
		start, end = min(start, spans[i].Start), max(end, spans[i].End)
	}
	weight := k.Trace.Weight
	if weight == 0 {
		weight = 1
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO traces (batch, id, route, at, duration, failed, weight) VALUES (?, ?, ?, ?, ?, ?, ?)",
		batch, ingest.WireTraceID(k.Trace.ID), k.Route, start, end-start, k.Failed, weight)
	return err
}

func (s *Store) batchFile(batch int64) string {
	return filepath.Join(s.traceDir(), fmt.Sprintf("%012d"+batchSuffix, batch))
}

// writeFile writes a file that is whole and synced, or not there.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), newPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// TraceQuery asks for kept traces. Zero fields match everything; Most is 100 when it is zero.
type TraceQuery struct {
	ID       string
	Route    string
	From, To time.Time     // of the trace's start: From <= it < To
	Longer   time.Duration // than this
	Failed   bool          // only those
	Slowest  bool          // the longest first, else the newest
	Most     int           // up to 10000
}

func (q TraceQuery) statement(columns string) (text string, args []any) {
	var where []string
	add := func(clause string, arg any) { where, args = append(where, clause), append(args, arg) }
	if q.ID != "" {
		add("id = ?", ingest.WireTraceID(q.ID))
	}
	if q.Route != "" {
		add("route = ?", q.Route)
	}
	if !q.From.IsZero() {
		add("at >= ?", q.From.UnixNano())
	}
	if !q.To.IsZero() {
		add("at < ?", q.To.UnixNano())
	}
	if q.Longer > 0 {
		add("duration > ?", int64(q.Longer))
	}
	if q.Failed {
		add("failed = ?", 1)
	}
	text = "SELECT " + columns + " FROM traces"
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	order := " ORDER BY at DESC"
	if q.Slowest {
		order = " ORDER BY duration DESC"
	}
	most := q.Most
	if most <= 0 {
		most = 100
	}
	return text + order + " LIMIT " + strconv.Itoa(min(most, 10_000)), args
}

// Found is a kept trace as the index knows it.
type Found struct {
	ID       string        // 32 hexadecimal digits
	Route    string        // as Kept had it
	Start    time.Time     // of its first span
	Duration time.Duration // to the end of its last one
	Failed   bool
	Weight   float64 // how many traces it stands for; 1 or more
}

// Find is what q asks for, in its order, from the index alone: no file of traces is read.
func (s *Store) Find(ctx context.Context, q TraceQuery) ([]Found, error) {
	text, args := q.statement("id, route, at, duration, failed, weight")
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, described(err)
	}
	all := []Found{}
	for rows.Next() {
		var f Found
		var at int64
		if err := rows.Scan(&f.ID, &f.Route, &at, &f.Duration, &f.Failed, &f.Weight); err != nil {
			return nil, errors.Join(described(err), rows.Close())
		}
		f.Start = time.Unix(0, at).UTC()
		all = append(all, f)
	}
	return all, described(errors.Join(rows.Err(), rows.Close()))
}

// Traces is the kept traces that q asks for, in its order. It reads each file of traces once. What is in a file that cannot
// be read is left out and counted; ErrDamaged when that leaves nothing.
func (s *Store) Traces(ctx context.Context, q TraceQuery) ([]trace.Trace, error) {
	text, args := q.statement("batch, id, weight")
	rows, err := s.read.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, described(err)
	}
	var found []trace.Trace
	at := map[int64]map[string][]int{} // by batch and trace: places in found
	for rows.Next() {
		var batch int64
		var t trace.Trace
		if err := rows.Scan(&batch, &t.ID, &t.Weight); err != nil {
			return nil, errors.Join(described(err), rows.Close())
		}
		if at[batch] == nil {
			at[batch] = map[string][]int{}
		}
		at[batch][t.ID] = append(at[batch][t.ID], len(found))
		found = append(found, t)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, described(err)
	}
	var damage error
	for batch, wanted := range at {
		if err := s.fill(batch, wanted, found); err != nil {
			damage = err
			for _, places := range wanted {
				for _, i := range places {
					found[i].Spans, found[i].Logs = nil, nil // what came before the damage may not be all of it
				}
			}
		}
	}
	all := len(found)
	found = slices.DeleteFunc(found, func(t trace.Trace) bool { return len(t.Spans) == 0 })
	s.damaged.Add(uint64(all - len(found)))
	if len(found) == 0 {
		return nil, damage
	}
	return found, nil
}

// fill reads the wanted traces of one batch.
func (s *Store) fill(batch int64, wanted map[string][]int, found []trace.Trace) error {
	blob, err := os.ReadFile(s.batchFile(batch))
	if errors.Is(err, os.ErrNotExist) {
		return nil // dropped for its age while we looked
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	unpacker, err := zstd.NewReader(bytes.NewReader(blob), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBatch))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer unpacker.Close()
	message, err := io.ReadAll(io.LimitReader(unpacker, maxBatch))
	if err == nil {
		err = ingest.DecodeTraces(message, func(span trace.Span) {
			for _, i := range wanted[span.TraceID] {
				found[i].Spans = append(found[i].Spans, span)
			}
		}, func(log trace.Log) {
			for _, i := range wanted[log.TraceID] {
				found[i].Logs = append(found[i].Logs, log)
			}
		})
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, s.batchFile(batch), err)
	}
	return nil
}

// dropTraces drops the batches that are too old, and the oldest while all are too big.
func (s *Store) dropTraces(ctx context.Context, now time.Time) error {
	type batch struct {
		id, at, bytes, traces int64
	}
	rows, err := s.read.QueryContext(ctx, "SELECT b.id, b.at, b.bytes, count(t.batch) FROM batches b LEFT JOIN traces t ON t.batch = b.id GROUP BY b.id ORDER BY b.id")
	if err != nil {
		return described(err)
	}
	var all []batch
	var total int64
	for rows.Next() {
		var b batch
		if err := rows.Scan(&b.id, &b.at, &b.bytes, &b.traces); err != nil {
			return errors.Join(described(err), rows.Close())
		}
		all, total = append(all, b), total+b.bytes
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return described(err)
	}
	oldest := now.Add(-s.config.TracesFor).UnixNano()
	for _, b := range all {
		if b.at >= oldest && total <= s.config.TraceBytes {
			continue // older ones may follow: clocks are set back
		}
		if b.at >= oldest {
			s.expired.Add(uint64(b.traces))
		}
		total -= b.bytes
		if err := s.dropBatch(ctx, b.id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropBatch(ctx context.Context, id int64) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM traces WHERE batch = ?", id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM batches WHERE id = ?", id)
		return err
	})
	if err != nil {
		return err
	}
	if err := os.Remove(s.batchFile(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

const (
	batchSuffix = ".otlp.zst"
	newPrefix   = "new-" // of a file that is not whole yet
)

// begins errs where the index is to begin anew though there are traces: sweep would remove all of them.
func (s *Store) begins() error {
	files, err := filepath.Glob(filepath.Join(s.traceDir(), "*"+batchSuffix))
	if err != nil || len(files) == 0 {
		return err
	}
	return fmt.Errorf("%w: longpole.db is gone or empty, but %s has %d files of traces; bring it back, or move them away to begin anew", ErrDamaged, s.traceDir(), len(files))
}

// sweep removes the files of ours that no index names: a crash came between the two.
func (s *Store) sweep(ctx context.Context) error {
	files, err := os.ReadDir(s.traceDir())
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, f := range files {
		var there bool
		number, whole := strings.CutSuffix(f.Name(), batchSuffix)
		if !whole && !strings.HasPrefix(f.Name(), newPrefix) || !f.Type().IsRegular() {
			continue
		}
		if id, err := strconv.ParseInt(number, 10, 64); err == nil {
			if err := s.write.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM batches WHERE id = ?)", id).Scan(&there); err != nil {
				return described(err)
			}
		}
		if !there {
			if err := os.Remove(filepath.Join(s.traceDir(), f.Name())); err != nil {
				return fmt.Errorf("store: %w", err)
			}
		}
	}
	return nil
}
