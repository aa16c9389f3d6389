package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

type decoder struct {
	file   string
	faults faults
}

func (d *decoder) fault(n ast.Node, path, format string, args ...any) {
	d.faults.add(at(d.file, start(n), path, fmt.Sprintf(format, args...)))
}

// value decodes n into v, which is settable.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if empty, spelled := null(n); empty {
		if v.Kind() == reflect.Pointer && !spelled {
			d.fault(n, path, "has no value; want {} for its defaults, or leave it out")
			return
		}
		v.SetZero()
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		d.value(n, fresh.Elem(), path)
		v.Set(fresh)
		return
	}
	// A struct that reads itself from a text may also be written out as a mapping.
	_, mapping := pairs(n)
	if v.CanAddr() && v.Addr().Type().Implements(textType) && (!mapping || v.Kind() != reflect.Struct) {
		d.text(n, v.Addr().Interface().(encoding.TextUnmarshaler), path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fields(n, v, path)
	case reflect.Map:
		d.entries(n, v, path)
	case reflect.Slice:
		d.items(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// null reports whether n is a null, and whether it was spelled out (null, ~) or is only a missing value.
func null(n ast.Node) (empty, spelled bool) {
	if n == nil {
		return true, false
	}
	t, ok := n.(*ast.NullNode)
	if !ok {
		return false, false
	}
	return true, t.Token != nil && t.Token.Type != token.ImplicitNullType
}

func (d *decoder) text(n ast.Node, v encoding.TextUnmarshaler, path string) {
	s, ok := plain(n)
	if !ok {
		d.fault(n, path, "%s is not allowed; want a text", describe(n))
		return
	}
	if err := v.UnmarshalText([]byte(s)); err != nil {
		d.fault(n, path, "%q is not allowed: %v", clip(s), err)
	}
}

func (d *decoder) fields(n ast.Node, v reflect.Value, path string) {
	list, ok := pairs(n)
	if !ok {
		d.fault(n, path, "%s is not allowed; want a mapping", describe(n))
		return
	}
	shape := fieldsOf(v.Type())
	seen := make(map[string]int, len(list))
	for _, p := range list {
		inner := join(path, p.name)
		if d.duplicate(p, inner, seen) {
			continue
		}
		index, ok := shape.index[p.name]
		if !ok {
			d.faults.add(at(d.file, p.key.GetToken(), inner, "unknown field"+suggest(p.name, shape.names)))
			continue
		}
		d.value(p.value, v.FieldByIndex(index), inner)
	}
}

// duplicate reports, and notes as a fault, that a mapping names a key a second time.
func (d *decoder) duplicate(p pair, path string, seen map[string]int) bool {
	if line, ok := seen[p.name]; ok {
		d.faults.add(at(d.file, p.key.GetToken(), path, fmt.Sprintf("duplicate key; it stands in line %d already", line)))
		return true
	}
	seen[p.name] = at("", p.key.GetToken(), "", "").Line
	return false
}

func (d *decoder) entries(n ast.Node, v reflect.Value, path string) {
	list, ok := pairs(n)
	if !ok {
		d.fault(n, path, "%s is not allowed; want a mapping of names", describe(n))
		return
	}
	fresh := reflect.MakeMapWithSize(v.Type(), len(list))
	seen := make(map[string]int, len(list))
	for _, p := range list {
		inner := join(path, p.name)
		if d.duplicate(p, inner, seen) {
			continue
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(p.value, elem, inner)
		fresh.SetMapIndex(reflect.ValueOf(p.name).Convert(v.Type().Key()), elem)
	}
	v.Set(fresh)
}

func (d *decoder) items(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		one := reflect.MakeSlice(v.Type(), 1, 1)
		d.value(n, one.Index(0), path)
		v.Set(one)
		return
	}
	list := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		d.value(whole(item), list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	s, ok := plain(n)
	want := ""
	switch {
	case v.Type() == durationType:
		var x time.Duration
		x, ok = parseDuration(s, ok)
		v.SetInt(int64(x))
		want = "a duration such as 250ms"
	case v.Kind() == reflect.Int64:
		var x int64
		x, ok = parseSize(s, ok)
		v.SetInt(x)
		want = "a size such as 64KiB"
	case v.CanInt():
		x, err := strconv.ParseInt(s, 10, v.Type().Bits())
		ok = ok && err == nil && !isText(n)
		v.SetInt(x)
		want = "an integer"
	case v.CanUint():
		x, err := strconv.ParseUint(s, 10, v.Type().Bits())
		ok = ok && err == nil && !isText(n)
		v.SetUint(x)
		want = "an integer that is not negative"
	case v.CanFloat():
		var x float64
		x, ok = parseShare(s, ok)
		v.SetFloat(x)
		want = "a number or a share such as 5%"
	case v.Kind() == reflect.Bool:
		b, isBool := n.(*ast.BoolNode)
		ok = isBool
		v.SetBool(isBool && b.Value)
		want = "true or false"
	case v.Kind() == reflect.String:
		ok = ok && isText(n)
		v.SetString(s)
		want = "a text; quote it if it is one"
	default:
		ok, want = false, "nothing: fields of type "+v.Type().String()+" cannot be set from a file"
	}
	if !ok {
		d.fault(n, path, "%s is not allowed; want %s", describe(n), want)
	}
}

// plain gives the text of a scalar as the file spells it, quotes and folding resolved.
func plain(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isText(n ast.Node) bool {
	return n.Type() == ast.StringType || n.Type() == ast.LiteralType
}

// describe says what n is, for a message.
func describe(n ast.Node) string {
	if s, ok := plain(n); ok {
		if isText(n) {
			return strconv.Quote(clip(s))
		}
		return clip(s)
	}
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	}
	return "this value"
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

func join(outer, inner string) string {
	if outer == "" {
		return inner
	}
	return outer + "." + inner
}
