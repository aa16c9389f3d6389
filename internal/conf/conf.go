// Package conf reads and writes settings: strict YAML, and JSON, which is a part of it.
//
// Decode reports every fault at once, each with file, line, column and dotted path; Locate gives the faults that a
// Validate finds afterwards the same places. The shape is the Go struct with its `yaml` tags; the units follow from the
// Go type, so that the struct needs no types of its own:
//
//	time.Duration   250ms, 1m30s; a bare 0
//	int64           a size: 64KiB, 1MB, 4096
//	float64         a number, or a share: 5%
//	int and others  a plain integer
//	[]T             a list, or a single T
//	map[string]T    a mapping
//	*T              null, or left out = nil
//
// Anchors, aliases, tags and merge keys are refused: a settings file has no need of them, and they are how a small file
// becomes a big one. Input is bounded by MaxBytes and MaxDepth.
package conf

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// The bounds on input.
const (
	MaxBytes = 4 << 20 // of one document
	MaxDepth = 64      // of nested mappings and lists

	maxTokens = 60_000 // the parser's time grows with the square of the fields of one mapping; this is a second of it
	maxFaults = 100    // reported at once; the rest is counted
)

// Error is one fault in a file.
type Error struct {
	File   string
	Line   int // from 1; 0 = the place is not known
	Column int // from 1, in characters
	Path   string
	Msg    string
}

// Error gives place, path and message in one line, as compilers do.
func (e *Error) Error() string {
	s := e.Msg
	if e.Path != "" {
		s = e.Path + ": " + s
	}
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, s)
	}
	return e.File + ": " + s
}

// Decode fills into, a pointer to a struct, from data. Fields that data does not name keep their value. On any fault
// into is left as it was, and the error joins one *Error for each fault, in the order of the file.
func Decode(file string, data []byte, into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return errors.New("conf: Decode wants a pointer that is not nil")
	}
	return load(file, data, target.Elem(), func(any) error { return nil })
}

// Load is Decode, followed by validate on what was decoded. Its error joins the faults of both, those of validate placed
// as by Locate, so that one reading of a file tells all that is wrong with it; a field that could not be decoded is not
// judged a second time.
func Load[T any](file string, data []byte, into *T, validate func(*T) error) error {
	return load(file, data, reflect.ValueOf(into).Elem(), func(fresh any) error { return validate(fresh.(*T)) })
}

func load(file string, data []byte, into reflect.Value, validate func(any) error) error {
	root, err := parse(file, data)
	if err != nil {
		return err
	}
	fresh := reflect.New(into.Type())
	fresh.Elem().Set(into)
	d := decoder{file: file}
	if root != nil {
		d.value(root, fresh.Elem(), "")
	}
	known := make(map[string]bool, len(d.faults.list))
	for _, e := range d.faults.list {
		known[e.Path] = true
	}
	for _, e := range places(file, root, validate(fresh.Interface())) {
		if !known[e.Path] {
			d.faults.add(e)
		}
	}
	if err := d.faults.err(); err != nil {
		return err
	}
	into.Set(fresh.Elem())
	return nil
}

// faults collects errors up to maxFaults.
type faults struct {
	list []*Error
	more int
}

func (f *faults) add(e *Error) {
	if len(f.list) == maxFaults {
		f.more++
		return
	}
	f.list = append(f.list, e)
}

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var all []error
	for _, e := range f.list {
		all = append(all, e)
	}
	if f.more > 0 {
		all = append(all, &Error{File: f.list[0].File, Msg: fmt.Sprintf("and %d more faults", f.more)})
	}
	return errors.Join(all...)
}
