package conf

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// parse gives the root of the only document in data; nil for an empty one.
func parse(file string, data []byte) (root ast.Node, err error) {
	if len(data) > MaxBytes {
		return nil, &Error{File: file, Msg: fmt.Sprintf("is %d bytes long; want at most %d", len(data), MaxBytes)}
	}
	if !utf8.Valid(data) {
		return nil, &Error{File: file, Msg: "is not UTF-8 text"}
	}
	// The library is not ours and reads what strangers send: a panic in it is a fault of the file, not of the program.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, &Error{File: file, Msg: "cannot be read as YAML"}
		}
	}()
	tokens := lexer.Tokenize(untab(data))
	if err := refuse(file, tokens); err != nil {
		return nil, err
	}
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntax(file, err)
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root != nil {
			return nil, at(file, doc.Body.GetToken(), "", "a second document; want one")
		}
		root = doc.Body
	}
	return root, nil
}

// untab makes the tabs that indent JSON spaces, which mean the same there. In YAML a tab that indents is a fault, and stays one.
func untab(data []byte) string {
	s := string(data)
	if !strings.HasPrefix(strings.TrimLeft(s, " \t\r\n"), "{") {
		return s
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if rest := strings.TrimLeft(line, " \t"); len(rest) < len(line) {
			lines[i] = strings.Repeat(" ", len(line)-len(rest)) + rest
		}
	}
	return strings.Join(lines, "\n")
}

// refuse finds what a settings file must not hold before the parser, which recurses, sees it.
func refuse(file string, tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return at(file, tokens[maxTokens], "", "has more fields and values than a settings file may have")
	}
	var f faults
	var depth depthGauge
	for i, t := range tokens {
		switch t.Type {
		case token.AnchorType:
			f.add(at(file, t, "", "an anchor (&) is not allowed; write the value out"))
		case token.AliasType:
			f.add(at(file, t, "", "an alias (*) is not allowed; write the value out, or quote it"))
		case token.MergeKeyType:
			f.add(at(file, t, "", "a merge key (<<) is not allowed; write the fields out"))
		case token.TagType:
			f.add(at(file, t, "", "a tag (!) is not allowed; quote the value"))
		case token.DirectiveType:
			f.add(at(file, t, "", "a directive (%) is not allowed"))
		}
		key := i+1 < len(tokens) && tokens[i+1].Type == token.MappingValueType
		if depth.add(t, key) > MaxDepth {
			f.add(at(file, t, "", fmt.Sprintf("nested deeper than %d levels", MaxDepth)))
			break
		}
	}
	return f.err()
}

// depthGauge follows how deep the tokens nest; it may say more than the truth, never less.
type depthGauge struct {
	flow    int
	columns []int // of the open block lists and mappings
}

func (g *depthGauge) add(t *token.Token, key bool) int {
	switch t.Type {
	case token.MappingStartType, token.SequenceStartType:
		g.flow++
	case token.MappingEndType, token.SequenceEndType:
		g.flow = max(0, g.flow-1)
	}
	if g.flow == 0 && t.Position != nil {
		g.block(t, key)
	}
	return g.flow + len(g.columns)
}

func (g *depthGauge) block(t *token.Token, key bool) {
	opens := key || t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
	if !opens {
		return
	}
	n := len(g.columns)
	for n > 0 && g.columns[n-1] >= t.Position.Column {
		n--
	}
	g.columns = append(g.columns[:n], t.Position.Column)
}

// syntax turns the parser's error into ours.
func syntax(file string, err error) error {
	if se, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		return at(file, se.Token, "", "syntax: "+se.Message)
	}
	return &Error{File: file, Msg: "syntax: " + err.Error()}
}

func at(file string, t *token.Token, path, msg string) *Error {
	e := &Error{File: file, Path: path, Msg: msg}
	if t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}

// pair is one field of a mapping.
type pair struct {
	key   ast.MapKeyNode
	name  string
	value ast.Node
}

// pairs gives the fields of a mapping in order; ok is false when n is none.
func pairs(n ast.Node) (list []pair, ok bool) {
	m, ok := n.(ast.MapNode)
	if !ok {
		return nil, false
	}
	for it := m.MapRange(); it.Next(); {
		list = append(list, pair{key: it.Key(), name: keyName(it.Key()), value: it.Value()})
	}
	return list, true
}

func keyName(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	if t := k.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

// start is the token at which a value begins for the reader: of a mapping its first key, not its colon.
func start(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return start(n.Values[0])
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

// whole undoes a habit of the parser: within a flow mapping it takes the colon of a plain item such as http://host:80 for
// the one between key and value, though no space follows it (YAML 1.2 section 7.3.3).
func whole(item ast.Node) ast.Node {
	list, ok := pairs(item)
	if !ok || len(list) != 1 || list[0].value == nil {
		return item
	}
	if m, ok := item.(*ast.MappingNode); ok && m.IsFlowStyle && m.Start != nil && m.Start.Type == token.MappingStartType {
		return item
	}
	key, value := list[0].key.GetToken(), list[0].value.GetToken()
	rest, scalar := plain(list[0].value)
	if !scalar || key.Position == nil || value.Position == nil || key.Indicator == token.QuotedScalarIndicator || value.Indicator == token.QuotedScalarIndicator {
		return item
	}
	if key.Position.Line != value.Position.Line || key.Position.Column+utf8.RuneCountInString(key.Value)+1 != value.Position.Column {
		return item
	}
	text := key.Value + ":" + rest
	return ast.String(token.String(text, text, key.Position))
}
