package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// result is what one suite says of one subject.
type result struct {
	Suite, Subject, Version string
	Cells                   []string // of the table's row
	Failures                []string // what failed, a line each
	Skipped                 string   // why there are no cells
	Missed                  string   // which goal of ours it misses
	Seconds                 float64
}

// book keeps the last result of each suite and subject in a file, so that a run of one suite leaves the others' rows.
type book struct {
	path    string
	results []result
}

func openBook(path string) *book {
	b := &book{path: path}
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &b.results) // an unreadable file is one without results
	}
	return b
}

func (b *book) put(r result) error {
	b.results = slices.DeleteFunc(b.results, func(o result) bool { return o.Suite == r.Suite && o.Subject == r.Subject })
	b.results = append(b.results, r)
	data, err := json.MarshalIndent(b.results, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.path, data, 0o644)
}

func (b *book) find(suite, subject string) (result, bool) {
	i := slices.IndexFunc(b.results, func(r result) bool { return r.Suite == suite && r.Subject == subject })
	if i < 0 {
		return result{}, false
	}
	return b.results[i], true
}

// table is a suite's results in Markdown.
func (b *book) table(st suite, subjects []*subject) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| subject | %s |\n|%s\n", strings.Join(st.columns, " | "), strings.Repeat("---|", len(st.columns)+1))
	for _, s := range subjects {
		r, ok := b.find(st.name, s.name)
		cells := r.Cells
		switch {
		case !ok:
			continue
		case r.Skipped != "":
			cells = make([]string, len(st.columns))
			cells[0] = "skipped: " + r.Skipped
		}
		fmt.Fprintf(&out, "| %s %s | %s |\n", s.title, r.Version, strings.Join(cells, " | "))
	}
	return out.String()
}

const (
	beginMark = "<!-- results: written by make conformance -->"
	endMark   = "<!-- end of results -->"
)

// write replaces what stands between the marks of the page.
func (b *book) write(page string, subjects []*subject) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(old), beginMark)
	_, tail, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return errors.New(page + ": no marks to write the results between")
	}
	var out strings.Builder
	out.WriteString(head + beginMark + "\n")
	for _, st := range suites() {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n%s", st.title, st.about, b.table(st, subjects))
		for _, s := range subjects {
			if r, ok := b.find(st.name, s.name); ok && len(r.Failures) > 0 {
				fmt.Fprintf(&out, "\n<details><summary>%s: %d not passed</summary>\n\n", s.title, len(r.Failures))
				for _, f := range r.Failures {
					fmt.Fprintf(&out, "- %s\n", f)
				}
				out.WriteString("\n</details>\n")
			}
		}
	}
	out.WriteString("\n" + endMark + tail)
	return os.WriteFile(page, []byte(out.String()), 0o644)
}

// code quotes s for Markdown.
func code(s string) string { return "`" + strings.ReplaceAll(s, "`", "'") + "`" }
