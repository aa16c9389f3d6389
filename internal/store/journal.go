package store

import (
	"context"
	"database/sql"
	"time"
)

// Entry is one line of a journal.
type Entry struct {
	Seq  int64 // grows from entry to entry, with gaps, over all journals
	At   time.Time
	Data []byte
}

// Append adds an entry to the journal stream, and returns its number. The entry is on disk when it returns. Entries are
// never changed; they go when they are older than Config.JournalsFor.
func (s *Store) Append(ctx context.Context, now time.Time, stream string, data []byte) (seq int64, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "INSERT INTO journal (stream, at, entry) VALUES (?, ?, ?)", stream, now.UnixNano(), notNil(data))
		if err != nil {
			return err
		}
		seq, err = r.LastInsertId()
		return err
	})
	return seq, err
}

// Entries is up to most entries of the journal stream with numbers above after, oldest first. Ask again with the last one's
// number for more.
func (s *Store) Entries(ctx context.Context, stream string, after int64, most int) (list []Entry, err error) {
	rows, err := s.read.QueryContext(ctx, "SELECT seq, at, entry FROM journal WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?", stream, after, most)
	if err != nil {
		return nil, described(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e Entry
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Data); err != nil {
			return nil, described(err)
		}
		e.At = time.Unix(0, at).UTC()
		list = append(list, e)
	}
	return list, described(rows.Err())
}

func (s *Store) dropEntries(ctx context.Context, now time.Time) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM journal WHERE at < ?", now.Add(-s.config.JournalsFor).UnixNano())
		return err
	})
}
