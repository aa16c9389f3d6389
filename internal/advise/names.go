package advise

import (
	"strings"
	"unicode"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// maxOperations is how many operations of one service a diagnosis tells apart. Findings name routes and operations as it
// does, so the corpus must too.
const maxOperations = 200

// rename gives the spans the names that a diagnosis uses: with IDs replaced where a service has too many operations.
func rename(trees []*diagnose.Tree) {
	seen := make(map[string]map[string]struct{})
	each := func(visit func(*trace.Span)) {
		for _, t := range trees {
			for i := range t.Spans {
				visit(&t.Spans[i])
			}
		}
	}
	each(func(s *trace.Span) {
		if seen[s.Service] == nil {
			seen[s.Service] = make(map[string]struct{})
		}
		if ops := seen[s.Service]; len(ops) <= maxOperations {
			ops[s.Name] = struct{}{}
		}
	})
	each(func(s *trace.Span) {
		if len(seen[s.Service]) > maxOperations {
			s.Name = withoutIDs(s.Name)
		}
	})
}

// withoutIDs replaces by {id} every part of a path or name that holds a digit and is more than a version such as v1.
func withoutIDs(operation string) string {
	if !strings.ContainsFunc(operation, unicode.IsDigit) {
		return operation
	}
	var b strings.Builder
	for rest := operation; rest != ""; {
		n := strings.IndexAny(rest, "/ ?&=")
		if n == 0 {
			b.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		if n < 0 {
			n = len(rest)
		}
		part := rest[:n]
		rest = rest[n:]
		if version := len(part) <= 3 && (part[0] == 'v' || part[0] == 'V'); !version && strings.ContainsFunc(part, unicode.IsDigit) {
			part = "{id}"
		}
		b.WriteString(part)
	}
	return b.String()
}

// shape is an SQL statement without what differs from call to call: its numbers and quoted texts.
func shape(sql string) string {
	const enough = 500
	sql = sql[:min(len(sql), enough)]
	var b strings.Builder
	quoted := false
	for i := range len(sql) {
		switch c := sql[i]; {
		case c == '\'':
			quoted = !quoted
			if quoted {
				b.WriteByte('?')
			}
		case quoted, c >= '0' && c <= '9':
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
