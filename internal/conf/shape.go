package conf

import (
	"reflect"
	"slices"
	"strings"
)

// shape is the fields of a struct by the name they have in a file.
type shape struct {
	names []string // in the order of the struct
	index map[string][]int
}

// fieldsOf reads the `yaml` tags of t. A field without a tag has its name in lower case; "-" hides it; an embedded
// struct without a name, or one tagged ",inline", lends its fields.
func fieldsOf(t reflect.Type) shape {
	s := shape{index: make(map[string][]int)}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Type.Kind() == reflect.Struct && (options == "inline" || f.Anonymous && name == "") {
			inner := fieldsOf(f.Type)
			for _, n := range inner.names {
				s.add(n, append([]int{i}, inner.index[n]...))
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		s.add(name, []int{i})
	}
	return s
}

func (s *shape) add(name string, index []int) {
	if _, ok := s.index[name]; !ok {
		s.names = append(s.names, name)
	}
	s.index[name] = index
}

// suggest completes the message for an unknown name: the nearest known one, or the list of them.
func suggest(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(name), k); d < distance && d < max(len(k), 2) {
			best, distance = k, d
		}
	}
	if best != "" {
		return `; did you mean "` + best + `"?`
	}
	if len(known) == 0 {
		return "; none is allowed here"
	}
	return "; known here are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

// edits is the Levenshtein distance, bounded: names longer than 64 are far from everything.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
