package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/internal/trace"
)

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func opened(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func keptAt(id int, at time.Time) Kept {
	name := fmt.Sprintf("%032x", id)
	return Kept{Route: "orders", Trace: trace.Trace{ID: name, Spans: []trace.Span{{TraceID: name, ID: fmt.Sprintf("%016x", id), Service: "s", Name: "n", Start: at.UnixNano(), End: at.UnixNano() + 1}}}}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseThatIsDamagedIsSaidAndLeftAlone(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"garbage": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600)
		},
		"gone":  os.Remove,
		"empty": func(path string) error { return os.Truncate(path, 0) },
		"cut":   func(path string) error { return os.Truncate(path, 5000) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := opened(t, dir)
			check(t, s.Keep(t.Context(), day, keptAt(1, day)), s.Close())
			path := filepath.Join(dir, "longpole.db")
			check(t, damage(path))
			before, _ := os.ReadFile(path)
			if s, err := Open(t.Context(), Config{Dir: dir}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				if err == nil {
					_ = s.Close()
				}
				t.Errorf("opened: %v", err)
			}
			after, _ := os.ReadFile(path)
			files, _ := os.ReadDir(filepath.Join(dir, "traces"))
			if len(files) != 1 || name != "gone" && name != "empty" && string(before) != string(after) {
				t.Errorf("%d files of traces are left; the database was %d bytes and is %d", len(files), len(before), len(after))
			}
		})
	}
}

func TestADamagedFileOfTracesHidesNoOther(t *testing.T) {
	s := opened(t, t.TempDir())
	for i := 1; i <= 3; i++ {
		check(t, s.Keep(t.Context(), day, keptAt(i, day.Add(time.Duration(i)*time.Second))))
	}
	check(t, os.WriteFile(s.batchFile(1), []byte("no zstd"), 0o600), os.Remove(s.batchFile(2)))
	list, err := s.Traces(t.Context(), TraceQuery{})
	if err != nil || len(list) != 1 || len(list[0].Spans) != 1 || s.Dropped().Damaged != 2 {
		t.Errorf("%v: %+v, %+v", err, list, s.Dropped())
	}
	if list, err := s.Traces(t.Context(), TraceQuery{ID: fmt.Sprintf("%032x", 1)}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), s.batchFile(1)) {
		t.Errorf("%v: %+v", err, list)
	}
	if list, err := s.Traces(t.Context(), TraceQuery{ID: fmt.Sprintf("%032x", 2)}); err != nil || len(list) > 0 {
		t.Errorf("of a file that is gone: %v, %+v", err, list)
	}
}

func TestWhatIsNotOursIsNotSweptAway(t *testing.T) {
	dir := t.TempDir()
	check(t, opened(t, dir).Close(), os.MkdirAll(filepath.Join(dir, "traces", "lost+found", "x"), 0o700),
		os.WriteFile(filepath.Join(dir, "traces", "notes.txt"), nil, 0o600), os.WriteFile(filepath.Join(dir, "traces", "new-1"), nil, 0o600))
	check(t, opened(t, dir).Close())
	if files, _ := os.ReadDir(filepath.Join(dir, "traces")); len(files) != 2 {
		t.Errorf("left: %v", files)
	}
}

func TestTheOldGoAlthoughTheClockWasSetBack(t *testing.T) {
	s := opened(t, t.TempDir())
	check(t, s.Keep(t.Context(), day.Add(365*24*time.Hour), keptAt(1, day)), s.Keep(t.Context(), day, keptAt(2, day)))
	check(t, s.Tidy(t.Context(), day.Add(30*24*time.Hour)))
	list, err := s.Find(t.Context(), TraceQuery{})
	if err != nil || len(list) != 1 || list[0].ID != fmt.Sprintf("%032x", 1) {
		t.Errorf("%v: %+v", err, list)
	}
}

// TestAFullDiskIsSaidAndRecoveredFrom bounds the database in place of the disk.
func TestAFullDiskIsSaidAndRecoveredFrom(t *testing.T) {
	s := opened(t, t.TempDir())
	bound := func(pages int) {
		_, err := s.write.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages))
		check(t, err)
	}
	bound(40)
	var full error
	wrote := 0
	for full == nil && wrote < 1000 {
		if _, full = s.Append(t.Context(), day, "j", make([]byte, 1000)); full == nil {
			wrote++
		}
	}
	if full == nil || !strings.Contains(full.Error(), "the disk is full") {
		t.Errorf("after %d entries: %v", wrote, full)
	}
	if err := s.Keep(t.Context(), day, keptAt(1, day), keptAt(2, day)); err == nil {
		if _, err := s.Append(t.Context(), day, "j", make([]byte, 1000)); err == nil {
			t.Error("the disk is not full")
		}
	}
	bound(1 << 20)
	_, err := s.Append(t.Context(), day, "j", nil)
	check(t, err, s.Keep(t.Context(), day, keptAt(3, day)), s.Tidy(t.Context(), day))
	list, err := s.Entries(t.Context(), "j", 0, 2000)
	if err != nil || len(list) != wrote+1 {
		t.Errorf("%v: %d entries; want %d", err, len(list), wrote+1)
	}
}

// TestACallThatIsGivenUpLeavesTheStoreUsable cuts writes off at any moment.
func TestACallThatIsGivenUpLeavesTheStoreUsable(t *testing.T) {
	s := opened(t, t.TempDir())
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		_ = s.Keep(ctx, day, keptAt(i+1, day))
		cancel()
	}
	check(t, s.Keep(t.Context(), day, keptAt(99, day)))
	list, err := s.Find(t.Context(), TraceQuery{Most: 1000})
	check(t, err)
	whole, err := s.Traces(t.Context(), TraceQuery{Most: 1000})
	if err != nil || len(whole) != len(list) {
		t.Errorf("%v: %d of %d traces are whole", err, len(whole), len(list))
	}
}

func TestTidyingScansNoTable(t *testing.T) {
	s := opened(t, t.TempDir())
	for _, statement := range []string{dropRollups, dropSeries} {
		rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+statement, 0)
		if err != nil {
			rows, err = s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+statement)
		}
		check(t, err)
		for rows.Next() {
			var id, parent, none int
			var step string
			check(t, rows.Scan(&id, &parent, &none, &step))
			if strings.HasPrefix(step, "SCAN r") {
				t.Errorf("%s: %s", statement, step)
			}
		}
		check(t, rows.Err(), rows.Close())
	}
}
