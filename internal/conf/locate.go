package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/longpole/longpole/setting"
)

// Locate gives the faults of a Validate their places in data, from which the settings were decoded: each *setting.Error
// becomes an *Error at its path or, where the file does not name that field, at the nearest part around it that it
// does. Other errors become an *Error without a place. The answer joins them in the order of the file; nil gives nil.
func Locate(file string, data []byte, err error) error {
	if err == nil {
		return nil
	}
	root, _ := parse(file, data) // data that cannot be read has no places
	var f faults
	for _, e := range places(file, root, err) {
		f.add(e)
	}
	return f.err()
}

// places gives each fault that err joins its place in root, which may be nil.
func places(file string, root ast.Node, err error) []*Error {
	var all []*Error
	for _, e := range setting.List(err) {
		var done *Error
		var fault *setting.Error
		switch {
		case errors.As(e, &done):
			all = append(all, done)
		case errors.As(e, &fault):
			all = append(all, at(file, find(root, fault.Path), fault.Path, message(fault)))
		default:
			all = append(all, &Error{File: file, Msg: e.Error()})
		}
	}
	return all
}

// message words a fault with its value in the units of the file.
func message(fault *setting.Error) string {
	switch v := fault.Value.(type) {
	case nil:
		return "is missing; want " + fault.Want
	case string:
		return fmt.Sprintf("%q is not allowed; want %s", clip(v), fault.Want)
	case float64:
		return fmt.Sprintf("%s is not allowed; want %s", strconv.FormatFloat(v, 'g', -1, 64), fault.Want)
	default:
		return fmt.Sprintf("%v is not allowed; want %s", v, fault.Want)
	}
}

// find walks path from n and gives the token to show: the value when it is a scalar, else its key.
func find(n ast.Node, path string) *token.Token {
	if n == nil {
		return nil
	}
	best := start(n)
	for path != "" {
		var key *token.Token
		key, n, path = step(n, path)
		if n == nil {
			if key != nil {
				best = key
			}
			return best
		}
		best = key
		if _, scalar := plain(n); scalar || key == nil {
			best = start(n)
		}
	}
	return best
}

// step goes one name or index down path. A nil key means that n has no key of its own (an item of a list); a nil next
// means that the file does not go further.
func step(n ast.Node, path string) (key *token.Token, next ast.Node, rest string) {
	if path[0] == '[' {
		return item(n, path)
	}
	list, _ := pairs(n)
	// Names may hold dots: the longest that fits is meant.
	found := -1
	for i, p := range list {
		after, ok := strings.CutPrefix(path, p.name)
		fits := ok && p.name != "" && (after == "" || after[0] == '.' || after[0] == '[')
		if fits && (found < 0 || len(p.name) > len(list[found].name)) {
			found, rest = i, strings.TrimPrefix(after, ".")
		}
	}
	if found < 0 {
		return nil, nil, ""
	}
	if empty, _ := null(list[found].value); empty {
		return list[found].key.GetToken(), nil, ""
	}
	return list[found].key.GetToken(), list[found].value, rest
}

func item(n ast.Node, path string) (key *token.Token, next ast.Node, rest string) {
	digits, rest, ok := strings.Cut(path[1:], "]")
	i, err := strconv.Atoi(digits)
	if !ok || err != nil || i < 0 {
		return nil, nil, ""
	}
	rest = strings.TrimPrefix(rest, ".")
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return nil, n, rest // a single value standing for a list of one
	}
	if i >= len(seq.Values) {
		return nil, nil, ""
	}
	return nil, whole(seq.Values[i]), rest
}
