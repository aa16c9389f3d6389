package evidence

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxStatement is the longest statement text, in bytes, that is looked at.
const MaxStatement = 64 << 10

// ErrStatement is wrapped by the reasons why a text is not planned.
var ErrStatement = errors.New("evidence: not a statement that is planned")

type tokenKind uint8

const (
	word   tokenKind = iota // keyword or name, in lower case
	quoted                  // "Name", with its quotes
	text                    // a string constant of any form
	number
	param // $1
	mark  // a place holder of a driver or of a scrubber: ?, %s, :name
	op    // operators, and ( ) [ ] , ; . ::
)

type token struct {
	kind tokenKind
	text string
	at   int // byte offset
}

// scan takes SQL apart as PostgreSQL's lexer does with standard_conforming_strings; comments are left out. ok is false when a
// string, name or comment has no end, as in a text that was cut.
func scan(sql string) (tokens []token, ok bool) {
	ok = true
	for i := 0; i < len(sql); {
		if n := blank(sql[i:]); n != 0 {
			if n < 0 {
				return tokens, false
			}
			i += n
			continue
		}
		kind, n := lexeme(sql[i:], tokens)
		if n < 0 {
			return tokens, false
		}
		s := sql[i : i+n]
		if kind == word {
			s = strings.ToLower(s)
		}
		tokens = append(tokens, token{kind, s, i})
		i += n
	}
	return tokens, ok
}

// blank is the length of the white space or comment at the head of s; -1 for a comment without end.
func blank(s string) int {
	switch {
	case s[0] == ' ' || s[0] >= '\t' && s[0] <= '\r':
		return 1
	case strings.HasPrefix(s, "--"):
		if end := strings.IndexAny(s, "\r\n"); end >= 0 {
			return end
		}
		return len(s)
	case strings.HasPrefix(s, "/*"):
		for depth, i := 1, 2; i < len(s)-1; i++ {
			switch s[i : i+2] {
			case "/*":
				depth++
				i++
			case "*/":
				if depth--; depth == 0 {
					return i + 2
				}
				i++
			}
		}
		return -1
	}
	return 0
}

// lexeme gives kind and length of the token at the head of s, which is not blank; -1 when it has no end.
func lexeme(s string, before []token) (tokenKind, int) {
	c := s[0]
	switch {
	case c == '\'':
		return text, closing(s, '\'', false, 1)
	case (c == 'e' || c == 'E') && strings.HasPrefix(s[1:], "'"):
		return text, closing(s, '\'', true, 2)
	case strings.ContainsRune("bBxXnN", rune(c)) && strings.HasPrefix(s[1:], "'"):
		return text, closing(s, '\'', false, 2)
	case c == '"':
		return quoted, closing(s, '"', false, 1)
	case c == '$':
		return dollar(s)
	case c >= '0' && c <= '9' || c == '.' && len(s) > 1 && s[1] >= '0' && s[1] <= '9':
		return number, digits(s)
	case c == '?' && operand(before):
		return mark, 1
	case c == '%' && strings.HasPrefix(s, "%s") && operand(before):
		return mark, 2
	case c == ':' && len(s) > 1 && letter(rune(s[1])) && operand(before):
		return mark, 1 + name(s[1:])
	case strings.HasPrefix(s, "::"):
		return op, 2
	case strings.IndexByte("()[],;.:", c) >= 0:
		return op, 1
	case strings.IndexByte(operators, c) >= 0:
		return op, operator(s)
	}
	if n := name(s); n > 0 {
		return word, n
	}
	_, n := utf8.DecodeRuneInString(s)
	return op, n
}

const operators = "+-*/<>=~!@#%^&|`?"

func operator(s string) int {
	n := 1
	for n < len(s) && strings.IndexByte(operators, s[n]) >= 0 && blank(s[n:]) == 0 {
		n++
	}
	// An operator ends in + or - only when it holds one of ~ ! @ # % ^ & | ` ?
	for n > 1 && (s[n-1] == '+' || s[n-1] == '-' || s[n-1] == '?') && !strings.ContainsAny(s[:n-1], "~!@#%^&|`?") {
		n--
	}
	return n
}

// operand tells whether a value may follow these tokens, so that ? is a place holder and no operator.
func operand(before []token) bool {
	if len(before) == 0 {
		return false
	}
	switch last := before[len(before)-1]; last.kind {
	case op:
		return last.text != ")" && last.text != "]"
	case word:
		return beforeValue[last.text]
	}
	return false
}

var beforeValue = map[string]bool{
	"in": true, "and": true, "or": true, "not": true, "like": true, "ilike": true, "between": true, "limit": true, "offset": true, "values": true,
	"then": true, "else": true, "when": true, "select": true, "where": true, "set": true, "any": true, "interval": true, "by": true, "is": true, "returning": true,
}

func closing(s string, end byte, escapes bool, from int) int {
	for i := from; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == end:
			if i+1 < len(s) && s[i+1] == end {
				i++
				continue
			}
			return i + 1
		}
	}
	return -1
}

func dollar(s string) (tokenKind, int) {
	n := 1
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n > 1 {
		return param, n
	}
	tag := 1
	if name(s[1:]) > 0 {
		tag += strings.IndexByte(s[1:]+"$", '$')
		if name(s[1:tag]) != tag-1 {
			return op, 1
		}
	}
	if tag >= len(s) || s[tag] != '$' {
		return op, 1
	}
	end := strings.Index(s[tag+1:], s[:tag+1])
	if end < 0 {
		return text, -1
	}
	return text, tag + 1 + end + tag + 1
}

func digits(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		exponent := (c == '+' || c == '-') && n > 0 && (s[n-1] == 'e' || s[n-1] == 'E')
		if !exponent && c != '.' && c != '_' && !letter(rune(c)) && (c < '0' || c > '9') {
			break
		}
		n++
	}
	return n
}

func name(s string) int {
	for i, r := range s {
		if !letter(r) && (i == 0 || r != '$' && !unicode.IsDigit(r)) {
			return i
		}
	}
	return len(s)
}

func letter(r rune) bool {
	return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80 && r != utf8.RuneError
}

// Fingerprint is sql without what changes from call to call: comments and white space are gone, words are in lower case, each
// constant and each place holder is a ?, and a list of them after IN is one. Texts with equal fingerprints do the same work up to their
// values; the reverse does not hold. A text that was cut gives the fingerprint of its whole tokens, and cut is true.
func Fingerprint(sql string) (fingerprint string, cut bool) {
	if len(sql) > MaxStatement {
		sql = sql[:MaxStatement]
	}
	tokens, ok := scan(sql)
	var b strings.Builder
	for i, t := range valuesOnly(tokens) {
		if t.kind == op && t.text == ";" {
			continue
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	trimmed := strings.TrimRight(sql, " \t\r\n")
	return strings.TrimSpace(b.String()), !ok || strings.HasSuffix(trimmed, "...") || strings.HasSuffix(trimmed, "…")
}

// valuesOnly replaces values by ?, drops the sign before them, and shortens lists of values after IN.
func valuesOnly(tokens []token) []token {
	var out []token
	var lists []bool // of the open parentheses: whether they began after IN
	for _, t := range tokens {
		if t.kind == op && t.text == "(" {
			lists = append(lists, len(out) > 0 && out[len(out)-1].kind == word && out[len(out)-1].text == "in")
		} else if t.kind == op && t.text == ")" && len(lists) > 0 {
			lists = lists[:len(lists)-1]
		}
		if t.kind == text || t.kind == number || t.kind == param || t.kind == mark {
			if n := len(out); n > 0 && out[n-1].kind == op && (out[n-1].text == "-" || out[n-1].text == "+") && operand(out[:n-1]) {
				out = out[:n-1]
			}
			n := len(out)
			if n >= 2 && out[n-1].text == "," && out[n-2].kind == mark && len(lists) > 0 && lists[len(lists)-1] {
				out = out[:n-1] // one ? stands for the list
				continue
			}
			t = token{mark, "?", t.at}
		}
		out = append(out, t)
	}
	return out
}

// Statement is a text that may be planned: one SELECT, INSERT, UPDATE, DELETE or MERGE.
type Statement struct {
	Text   string // with place holders of drivers turned to $1, $2, … and without a semicolon
	Params int    // highest $n
	Marks  bool   // place holders were not PostgreSQL's own: their places are known, their types are the server's guess
}

// ParseStatement tells whether sql may be planned, and how; an error wraps ErrStatement and says why not. It is careful, not
// clever: what it does not understand it refuses. The server's own grammar is the second guard, a READ ONLY transaction the third.
func ParseStatement(sql string) (Statement, error) {
	if len(sql) > MaxStatement {
		return Statement{}, fmt.Errorf("%w: longer than %d bytes", ErrStatement, MaxStatement)
	}
	if strings.IndexByte(sql, 0) >= 0 || !utf8.ValidString(sql) {
		return Statement{}, fmt.Errorf("%w: no valid text", ErrStatement)
	}
	tokens, ok := scan(sql)
	if !ok {
		return Statement{}, fmt.Errorf("%w: the text was cut", ErrStatement)
	}
	for len(tokens) > 0 && tokens[len(tokens)-1].text == ";" {
		sql = sql[:tokens[len(tokens)-1].at]
		tokens = tokens[:len(tokens)-1]
	}
	if err := plannable(tokens); err != nil {
		return Statement{}, err
	}
	return placeholders(sql, tokens)
}

func plannable(tokens []token) error {
	if len(tokens) == 0 {
		return fmt.Errorf("%w: empty", ErrStatement)
	}
	verb, depth := tokens[0].text, 0
	if verb == "with" {
		verb = "select"
	}
	switch verb {
	case "select", "insert", "update", "delete", "merge":
	default:
		return fmt.Errorf("%w: begins with %.20q, want SELECT, INSERT, UPDATE, DELETE, MERGE or WITH", ErrStatement, tokens[0].text)
	}
	for i, t := range tokens {
		switch {
		case t.kind == op && t.text == ";":
			return fmt.Errorf("%w: several statements", ErrStatement)
		case t.kind == op && t.text == "(":
			depth++
		case t.kind == op && t.text == ")":
			depth--
		case t.kind == word && t.text == "into" && depth == 0 && verb == "select" && (i == 0 || tokens[i-1].text != "insert" && tokens[i-1].text != "merge"):
			return fmt.Errorf("%w: SELECT INTO makes a table", ErrStatement)
		case t.kind != text && t.kind != quoted && strings.Contains(t.text, "…") || t.kind == op && (t.text == "." && i+2 < len(tokens) && tokens[i+1].text == "." && tokens[i+2].text == "."):
			return fmt.Errorf("%w: the text was cut", ErrStatement)
		}
	}
	return nil
}

func placeholders(sql string, tokens []token) (Statement, error) {
	s := Statement{Text: strings.TrimSpace(sql)}
	marks := 0
	for _, t := range tokens {
		switch t.kind {
		case param:
			n, err := strconv.Atoi(t.text[1:])
			if err != nil || n < 1 || n > 65535 {
				return Statement{}, fmt.Errorf("%w: parameter %s", ErrStatement, t.text)
			}
			s.Params = max(s.Params, n)
		case mark:
			marks++
		}
	}
	if marks == 0 {
		return s, nil
	}
	if s.Params > 0 {
		return Statement{}, fmt.Errorf("%w: place holders of two kinds", ErrStatement)
	}
	var b strings.Builder
	from := 0
	for _, t := range tokens {
		if t.kind == mark {
			s.Params++
			b.WriteString(sql[from:t.at] + "$" + strconv.Itoa(s.Params))
			from = t.at + len(t.text)
		}
	}
	s.Text, s.Marks = strings.TrimSpace(b.String()+sql[from:]), true
	return s, nil
}
