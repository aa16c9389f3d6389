package evidence

import (
	"slices"
	"strings"
)

// condition is one part of a WHERE or ON that compares a column.
type condition struct {
	table, column string // as the plan writes them; table "" when it tells none; an expression stands in parentheses
	equal         bool   // =, = ANY, IS NULL; else a range
	other         string // the column on the other side, "" when it is a value
	otherTable    string
}

// own tells whether c compares a column of alias with something that is no column.
func (c condition) own(alias string) bool {
	return c.other == "" && (c.table == "" || c.table == alias)
}

// side is the column of alias in a comparison of two columns.
func (c condition) side(alias string) (string, bool) {
	switch {
	case c.other == "":
		return "", false
	case c.table == alias:
		return c.column, true
	case c.otherTable == alias:
		return c.other, true
	}
	return "", false
}

// conditions takes the parts of a condition that AND joins; those it does not understand are left out.
func conditions(expr string) []condition {
	tokens, ok := scan(expr)
	if !ok || len(tokens) > 10_000 {
		return nil
	}
	var out []condition
	for todo := [][]token{tokens}; len(todo) > 0; {
		t := bare(todo[len(todo)-1])
		todo = todo[:len(todo)-1]
		if split(t, "or") != nil {
			continue
		}
		if parts := split(t, "and"); parts != nil {
			slices.Reverse(parts)
			todo = append(todo, parts...)
			continue
		}
		if c, ok := comparison(expr, t); ok {
			out = append(out, c)
		}
	}
	return out
}

// bare strips the parentheses around all of t.
func bare(t []token) []token {
	for len(t) >= 2 && t[0].text == "(" && t[0].kind == op && match(t) == len(t)-1 {
		t = t[1 : len(t)-1]
	}
	return t
}

// match is the place of the parenthesis that closes that at the head of t.
func match(t []token) int {
	depth := 0
	for i, x := range t {
		if x.kind != op {
			continue
		}
		switch x.text {
		case "(", "[":
			depth++
		case ")", "]":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// split cuts t at a word outside of parentheses; nil when it is not there.
func split(t []token, at string) [][]token {
	var out [][]token
	depth, from := 0, 0
	for i, x := range t {
		switch {
		case x.kind == op && (x.text == "(" || x.text == "["):
			depth++
		case x.kind == op && (x.text == ")" || x.text == "]"):
			depth--
		case x.kind == word && x.text == at && depth == 0:
			out = append(out, t[from:i])
			from = i + 1
		}
	}
	if out == nil {
		return nil
	}
	return append(out, t[from:])
}

func comparison(expr string, t []token) (condition, bool) {
	depth := 0
	for i, x := range t {
		switch {
		case x.kind == op && (x.text == "(" || x.text == "["):
			depth++
		case x.kind == op && (x.text == ")" || x.text == "]"):
			depth--
		case depth == 0 && x.kind == word && x.text == "is" && len(t) == i+2 && t[i+1].text == "null":
			return sides(expr, t[:i], nil, "=")
		case depth == 0 && x.kind == op && comparisons[x.text]:
			return sides(expr, t[:i], t[i+1:], x.text)
		}
	}
	return condition{}, false
}

var comparisons = words("= < > <= >=")

func sides(expr string, left, right []token, operator string) (condition, bool) {
	c := condition{equal: operator == "="}
	leftTable, leftColumn, l := column(left)
	rightTable, rightColumn, r := column(right)
	switch {
	case l && r:
		c.table, c.column, c.otherTable, c.other = leftTable, leftColumn, rightTable, rightColumn
	case l && constant(right):
		c.table, c.column = leftTable, leftColumn
	case r && constant(left):
		c.table, c.column = rightTable, rightColumn
	case constant(right):
		return expression(expr, left, c)
	default:
		return c, false
	}
	return c, true
}

// column reads t.c or c, in parentheses or not, with casts or not.
func column(t []token) (table, name string, ok bool) {
	t = bare(t)
	for i, x := range t {
		if x.kind == op && x.text == "::" {
			t = bare(t[:i])
			break
		}
	}
	isName := func(x token) bool { return x.kind == quoted || x.kind == word && !values[x.text] }
	switch {
	case len(t) == 1 && isName(t[0]):
		return "", t[0].text, true
	case len(t) == 3 && isName(t[0]) && t[1].text == "." && isName(t[2]):
		return strings.ReplaceAll(strings.Trim(t[0].text, `"`), `""`, `"`), t[2].text, true
	}
	return "", "", false
}

var values = words("true false null current_date current_timestamp current_user session_user localtime localtimestamp")

// constant tells whether t holds no column: values, parameters, functions of them.
func constant(t []token) bool {
	for i, x := range t {
		if x.kind != word && x.kind != quoted || values[x.text] {
			continue
		}
		cast := i > 0 && (t[i-1].text == "::" || t[i-1].kind == word)
		call := i+1 < len(t) && t[i+1].text == "("
		if !cast && !call && x.text != "any" && x.text != "all" {
			return false
		}
	}
	return true
}

// expression is a comparison of a function of columns of one table, as lower(t.name) = 'x'.
func expression(expr string, t []token, c condition) (condition, bool) {
	t = bare(t)
	if len(t) < 4 || t[0].kind != word || t[1].text != "(" || match(t[1:]) != len(t)-2 {
		return c, false
	}
	var b strings.Builder
	columns := 0
	for i := 0; i < len(t); i++ {
		x := t[i]
		if x.kind == param || x.kind == mark || x.kind == word && x.text == "subplan" {
			return c, false
		}
		if i+2 < len(t) && (x.kind == word || x.kind == quoted) && t[i+1].text == "." {
			table := strings.Trim(x.text, `"`)
			if c.table != "" && c.table != table {
				return c, false
			}
			c.table = table
			columns++
			i += 2
			x = t[i]
		}
		if i > 0 && x.kind != op && t[i-1].kind != op {
			b.WriteByte(' ')
		}
		b.WriteString(expr[x.at : x.at+len(x.text)])
	}
	c.column = "(" + b.String() + ")"
	return c, columns > 0
}
