package conf

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Marshal writes v, a struct or a pointer to one, as YAML that Decode reads back. Zero fields are left out; a pointer to
// a zero struct is written as {}, because a part that is on with its defaults is not a part that is off.
func Marshal(v any) ([]byte, error) {
	n, err := tree(reflect.ValueOf(v))
	if err != nil {
		return nil, err
	}
	return yaml.MarshalWithOptions(mapSlices(n), yaml.Indent(2), yaml.IndentSequence(true))
}

// MarshalJSON writes v as JSON, with the names and units of Marshal.
func MarshalJSON(v any) ([]byte, error) {
	n, err := tree(reflect.ValueOf(v))
	if err != nil {
		return nil, err
	}
	return json.Marshal(n)
}

// object is a mapping in the order of its struct.
type object []member

type member struct {
	name  string
	value any // object, []any or a scalar
}

// MarshalJSON keeps the order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// mapSlices is n in the types that the YAML encoder knows.
func mapSlices(n any) any {
	switch n := n.(type) {
	case object:
		m := make(yaml.MapSlice, 0, len(n))
		for _, f := range n {
			m = append(m, yaml.MapItem{Key: f.name, Value: mapSlices(f.value)})
		}
		return m
	case []any:
		list := make([]any, len(n))
		for i := range n {
			list[i] = mapSlices(n[i])
		}
		return list
	}
	return n
}

// tree is v in the terms of a file.
func tree(v reflect.Value) (any, error) {
	if !v.IsValid() {
		return nil, nil
	}
	if t, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		text, err := t.MarshalText()
		return string(text), err
	}
	switch {
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface:
		return tree(v.Elem())
	case v.Type() == durationType:
		return formatDuration(time.Duration(v.Int())), nil
	case v.Kind() == reflect.Int64:
		if s := formatSize(v.Int()); strings.HasSuffix(s, "B") {
			return s, nil
		}
		return v.Int(), nil
	case v.CanInt(), v.CanUint(), v.CanFloat(), v.Kind() == reflect.Bool:
		return v.Interface(), nil
	case v.Kind() == reflect.String:
		return v.String(), nil
	case v.Kind() == reflect.Struct:
		return structTree(v)
	case v.Kind() == reflect.Map:
		return mapTree(v)
	case v.Kind() == reflect.Slice:
		return sliceTree(v)
	}
	return nil, fmt.Errorf("conf: a value of type %s cannot be written; want what Decode reads", v.Type())
}

func structTree(v reflect.Value) (any, error) {
	o := object{}
	s := fieldsOf(v.Type())
	for _, name := range s.names {
		field := v.FieldByIndex(s.index[name])
		if field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0 || field.Kind() == reflect.Map && field.Len() == 0 {
			continue
		}
		n, err := tree(field)
		if err != nil {
			return nil, err
		}
		o = append(o, member{name, n})
	}
	return o, nil
}

func mapTree(v reflect.Value) (any, error) {
	o := object{}
	for _, key := range v.MapKeys() {
		n, err := tree(v.MapIndex(key))
		if err != nil {
			return nil, err
		}
		o = append(o, member{key.String(), n})
	}
	slices.SortFunc(o, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return o, nil
}

func sliceTree(v reflect.Value) (any, error) {
	list := make([]any, v.Len())
	for i := range list {
		n, err := tree(v.Index(i))
		if err != nil {
			return nil, err
		}
		list[i] = n
	}
	return list, nil
}
