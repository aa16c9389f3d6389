package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/stats"
)

// Lumped is the name that Series beyond Config.MaxSeries are counted under together.
const Lumped = "other"

// Series names one thing that is measured over time. Empty parts mean the whole: Series{Route: "orders"} is the route.
type Series struct {
	Route    string `json:"route"`
	Segment  string `json:"segment"`
	Endpoint string `json:"endpoint"`
}

// Rollup is what happened in a Series in one span of time.
type Rollup struct {
	Series
	From    time.Time
	Width   time.Duration // set by the Store
	Calls   uint64
	Failed  uint64
	Latency stats.Snapshot
}

// A level is a resolution in time. Histograms are written at the finest and folded into the next one when they are older
// than kept, so that what is recent is sharp and what is old is small.
type level struct{ width, kept time.Duration }

var levels = [...]level{
	{10 * time.Second, 6 * time.Hour},
	{time.Minute, 7 * 24 * time.Hour},
	{10 * time.Minute, 90 * 24 * time.Hour},
	{time.Hour, 0}, // until Config.RollupsFor
}

// Add adds rollups to what there is of their Series in the 10 seconds of their From. All or none are on disk when it
// returns.
func (s *Store) Add(ctx context.Context, list ...Rollup) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		for i := range list {
			id, err := s.seriesID(ctx, tx, list[i].Series)
			if err != nil {
				return err
			}
			if err := merge(ctx, tx, 0, id, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// seriesID finds or makes the row of k. When there are too many, it is that of [Lumped].
func (s *Store) seriesID(ctx context.Context, tx *sql.Tx, k Series) (id int64, err error) {
	find := func(k Series) error {
		return tx.QueryRowContext(ctx, "SELECT id FROM series WHERE route = ? AND segment = ? AND endpoint = ?", k.Route, k.Segment, k.Endpoint).Scan(&id)
	}
	if err := find(k); !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM series").Scan(&n); err != nil {
		return 0, err
	}
	if n >= s.config.MaxSeries {
		s.lumped.Add(1)
		k = Series{Route: Lumped, Segment: Lumped, Endpoint: Lumped}
		if err := find(k); !errors.Is(err, sql.ErrNoRows) {
			return id, err
		}
	}
	r, err := tx.ExecContext(ctx, "INSERT INTO series (route, segment, endpoint) VALUES (?, ?, ?)", k.Route, k.Segment, k.Endpoint)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// merge adds r to the row of its time at a level.
func merge(ctx context.Context, tx *sql.Tx, at int, series int64, r *Rollup) error {
	from := r.From.Truncate(levels[at].width).Unix()
	calls, failed, latency := r.Calls, r.Failed, r.Latency
	var c, f int64
	var blob []byte
	err := tx.QueryRowContext(ctx, "SELECT calls, failed, latency FROM rollups WHERE level = ? AND series = ? AND at = ?", at, series, from).Scan(&c, &f, &blob)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	default:
		var there stats.Snapshot
		if err := there.UnmarshalBinary(blob); err != nil {
			return err
		}
		calls, failed, latency = calls+uint64(c), failed+uint64(f), latency.Merge(there)
	}
	if blob, err = latency.MarshalBinary(); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO rollups (level, series, at, calls, failed, latency) VALUES (?, ?, ?, ?, ?, ?)",
		at, series, from, int64(calls), int64(failed), blob)
	return err
}

// Query asks for rollups. Zero fields of Series match everything.
type Query struct {
	Series
	From, To time.Time // of Rollup.From: From <= it < To
}

const selectRollups = `SELECT s.route, s.segment, s.endpoint, r.level, r.at, r.calls, r.failed, r.latency FROM rollups r JOIN series s ON s.id = r.series
 WHERE r.at >= ? AND r.at < ? AND (? = '' OR s.route = ?) AND (? = '' OR s.segment = ?) AND (? = '' OR s.endpoint = ?)
 ORDER BY r.at, s.route, s.segment, s.endpoint, r.level`

// Each calls with for every rollup that q asks for, oldest first, until it returns false. Rollups of one Series do not
// overlap; older ones are wider.
func (s *Store) Each(ctx context.Context, q Query, with func(Rollup) bool) error {
	rows, err := s.read.QueryContext(ctx, selectRollups, q.From.Unix(), q.To.Unix(), q.Route, q.Route, q.Segment, q.Segment, q.Endpoint, q.Endpoint)
	if err != nil {
		return described(err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scanRollup(rows)
		if err != nil {
			return described(err)
		}
		if !with(r) {
			return nil
		}
	}
	return described(rows.Err())
}

func scanRollup(rows *sql.Rows) (r Rollup, err error) {
	var n int
	var at, calls, failed int64
	var blob []byte
	if err := rows.Scan(&r.Route, &r.Segment, &r.Endpoint, &n, &at, &calls, &failed, &blob); err != nil {
		return r, err
	}
	if n < 0 || n >= len(levels) {
		return r, fmt.Errorf("a rollup of level %d", n)
	}
	r.From, r.Width, r.Calls, r.Failed = time.Unix(at, 0).UTC(), levels[n].width, uint64(calls), uint64(failed)
	return r, r.Latency.UnmarshalBinary(blob)
}

// Both run every minute while all writers wait: they name the levels so that an index answers, whatever there is.
const (
	dropRollups = "DELETE FROM rollups WHERE level IN (0, 1, 2, 3) AND at < ?"
	dropSeries  = "DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM rollups r WHERE r.level IN (0, 1, 2, 3) AND r.series = series.id)"
)

// foldAtOnce bounds one transaction of fold, so that writers do not wait long.
const foldAtOnce = 5000

// fold moves rollups that are too old for their level to the next one, and drops those too old for all. The boundary is
// a whole step of the coarser level, so that no step is ever split between two levels.
func (s *Store) fold(ctx context.Context, now time.Time) error {
	for at := range len(levels) - 1 {
		before := now.Add(-levels[at].kept).Truncate(levels[at+1].width).Unix()
		for more := true; more; {
			if err := s.change(ctx, func(tx *sql.Tx) (err error) {
				more, err = foldSome(ctx, tx, at, before)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return s.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, dropRollups, now.Add(-s.config.RollupsFor).Unix()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, dropSeries)
		return err
	})
}

func foldSome(ctx context.Context, tx *sql.Tx, at int, before int64) (more bool, err error) {
	type row struct {
		series int64
		Rollup
	}
	var list []row
	rows, err := tx.QueryContext(ctx, "SELECT series, at, calls, failed, latency FROM rollups WHERE level = ? AND at < ? ORDER BY at LIMIT ?", at, before, foldAtOnce)
	if err != nil {
		return false, err
	}
	for rows.Next() {
		var r row
		var from, calls, failed int64
		var blob []byte
		if err = rows.Scan(&r.series, &from, &calls, &failed, &blob); err == nil {
			err = r.Latency.UnmarshalBinary(blob)
		}
		if err != nil {
			break
		}
		r.From, r.Calls, r.Failed = time.Unix(from, 0), uint64(calls), uint64(failed)
		list = append(list, r)
	}
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return false, err
	}
	for i := range list {
		r := &list[i]
		if err := merge(ctx, tx, at+1, r.series, &r.Rollup); err != nil {
			return false, err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM rollups WHERE level = ? AND series = ? AND at = ?", at, r.series, r.From.Unix()); err != nil {
			return false, err
		}
	}
	return len(list) == foldAtOnce, nil
}
