package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"modernc.org/sqlite" // also registers the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors of a Store, for errors.Is.
var (
	ErrInUse  = errors.New("store: another process uses the folder")
	ErrNewer  = errors.New("store: the folder was written by a newer version")
	ErrAbsent = errors.New("store: there is no such thing")
	// ErrDamaged is a database, or a file of traces, that cannot be read. Nothing of it is removed.
	ErrDamaged = errors.New("store: the folder is damaged")
)

// version is what this code writes. A folder of an older version is brought up to date when it is opened.
const version = 1

const schema = `
CREATE TABLE series (id INTEGER PRIMARY KEY, route TEXT NOT NULL, segment TEXT NOT NULL, endpoint TEXT NOT NULL, UNIQUE (route, segment, endpoint));
CREATE TABLE rollups (level INTEGER NOT NULL, series INTEGER NOT NULL, at INTEGER NOT NULL, calls INTEGER NOT NULL, failed INTEGER NOT NULL,
  latency BLOB NOT NULL, PRIMARY KEY (level, series, at)) WITHOUT ROWID;
CREATE INDEX rollups_at ON rollups (level, at);
CREATE TABLE batches (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE traces (batch INTEGER NOT NULL, id TEXT NOT NULL, route TEXT NOT NULL, at INTEGER NOT NULL, duration INTEGER NOT NULL,
  failed INTEGER NOT NULL, weight REAL NOT NULL);
CREATE INDEX traces_batch ON traces (batch);
CREATE INDEX traces_id ON traces (id);
CREATE INDEX traces_at ON traces (at);
CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, at INTEGER NOT NULL, entry BLOB NOT NULL);
CREATE INDEX journal_stream ON journal (stream, seq);
CREATE TABLE states (name TEXT PRIMARY KEY, at INTEGER NOT NULL, value BLOB NOT NULL);
`

// Store is an open folder. All methods are safe for concurrent use; writers wait for each other.
type Store struct {
	config Config
	write  *sql.DB // one connection
	read   *sql.DB
	lock   *os.File

	lumped  atomic.Uint64 // rollups that were counted together for want of a series
	expired atomic.Uint64 // traces that were dropped by size before their time
	damaged atomic.Uint64 // times that a trace could not be read
}

// Dropped is what the bounds of the configuration cost since the folder was opened.
type Dropped struct {
	Series uint64 `json:"series"` // histograms counted together as [Lumped]
	Traces uint64 `json:"traces"` // kept traces dropped before their age, for want of space
	// Damaged is how often a kept trace was left out of an answer, because its file is gone or cannot be read.
	Damaged uint64 `json:"damaged"`
}

// Open opens the folder of c, and makes it when it is missing. It errs with the faults of c, ErrInUse, ErrNewer, ErrDamaged,
// or what the disk says.
func Open(ctx context.Context, c Config) (_ *Store, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Store{config: c.WithDefaults()}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err := os.MkdirAll(s.traceDir(), 0o750); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if s.lock, err = lockFile(filepath.Join(s.config.Dir, "lock")); err != nil {
		return nil, err
	}
	path := filepath.Join(s.config.Dir, "longpole.db")
	const pragmas = "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)&_pragma=foreign_keys(ON)"
	if s.write, err = sql.Open("sqlite", "file:"+path+pragmas+"&_txlock=immediate"); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s.write.SetMaxOpenConns(1)
	if err := s.migrate(ctx); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	if s.read, err = sql.Open("sqlite", "file:"+path+pragmas); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s.read.SetMaxOpenConns(4)
	return s, s.sweep(ctx)
}

func (s *Store) traceDir() string { return filepath.Join(s.config.Dir, "traces") }

// migrate brings the tables to version.
func (s *Store) migrate(ctx context.Context) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		var found int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
			return err
		}
		switch {
		case found > version:
			return fmt.Errorf("%w: version %d, this one knows up to %d", ErrNewer, found, version)
		case found == version:
			return nil
		}
		if err := s.begins(); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	})
}

// change runs one transaction; when it returns nil, what do wrote is on disk.
func (s *Store) change(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return described(err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return described(err)
	}
	err = tx.Commit()
	if err != nil {
		// The transaction may still be open on the one connection that writes, where no other could begin; mostly it is not.
		_, _ = s.write.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	}
	return described(err)
}

// described prefixes what SQLite says, and tells a full disk apart.
func described(err error) error {
	if err == nil {
		return nil
	}
	if fault, ok := errors.AsType[*sqlite.Error](err); ok {
		switch fault.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("store: the disk is full: %w", err)
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: longpole.db: %w", ErrDamaged, err)
		}
	}
	if errors.Is(err, ErrNewer) || errors.Is(err, ErrAbsent) || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("store: %w", err)
}

// Put keeps value under name, in place of what was there.
func (s *Store) Put(ctx context.Context, now time.Time, name string, value []byte) error {
	return s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO states (name, at, value) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at, value = excluded.value",
			name, now.UnixNano(), notNil(value))
		return err
	})
}

// Get is what Put kept under name last; ErrAbsent when there is nothing.
func (s *Store) Get(ctx context.Context, name string) (value []byte, err error) {
	err = s.read.QueryRowContext(ctx, "SELECT value FROM states WHERE name = ?", name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: state %q", ErrAbsent, name)
	}
	return value, described(err)
}

// Tidy drops what is too old or too much, and folds old histograms into coarser ones. Call it every minute or so.
func (s *Store) Tidy(ctx context.Context, now time.Time) error {
	return errors.Join(s.fold(ctx, now), s.dropTraces(ctx, now), s.dropEntries(ctx, now))
}

// Dropped is what the bounds cost so far.
func (s *Store) Dropped() Dropped {
	return Dropped{Series: s.lumped.Load(), Traces: s.expired.Load(), Damaged: s.damaged.Load()}
}

// Close ends the use of the folder. The Store must not be used any more.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close()) // which unlocks it
	}
	return errors.Join(errs...)
}

// notNil keeps SQLite from taking an empty value for NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
