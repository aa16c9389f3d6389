// Package setting says what is wrong with a setting, so that every package can
// check its own Config and a program can show all faults at once, each with its place.
package setting

import (
	"errors"
	"fmt"
)

// Error is one faulty setting.
type Error struct {
	Path  string // dotted, as in the file: "routes[0].policy.retry.max_attempts"; "" = the whole
	Value any    // what was found
	Want  string // what would be accepted: "1..10"
}

// Error gives path, value and what was expected in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %v is not allowed; want %s", e.Path, e.Value, e.Want)
}

// Faults collects what is wrong. The zero value is empty and ready to use; it
// is not safe for concurrent use.
type Faults struct{ list []error }

// Check adds a fault at path unless ok.
func (f *Faults) Check(ok bool, path string, value any, want string) {
	if !ok {
		f.list = append(f.list, &Error{Path: path, Value: value, Want: want})
	}
}

// Within adds the faults of err, which a nested Validate returned, under path.
// Errors that are no *Error are kept as they are.
func (f *Faults) Within(path string, err error) {
	for _, e := range List(err) {
		if fault, ok := errors.AsType[*Error](e); ok {
			inner := *fault
			inner.Path = join(path, fault.Path)
			e = &inner
		}
		f.list = append(f.list, e)
	}
}

// Err joins what was collected; nil when nothing was.
func (f *Faults) Err() error { return errors.Join(f.list...) }

// List takes a joined error apart again; nil gives none.
func List(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, List(e)...)
		}
		return all
	}
	return []error{err}
}

func join(outer, inner string) string {
	switch {
	case inner == "":
		return outer
	case outer == "" || inner[0] == '[':
		return outer + inner
	}
	return outer + "." + inner
}
