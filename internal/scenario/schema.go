package scenario

import (
	"encoding/json"
	"reflect"
	"time"
)

// object is a part of a JSON Schema.
type object map[string]any

// Schema is the JSON Schema (draft 2020-12) of a scenario file, made from the types. What only the whole file can tell, such
// as a call of an unknown operation, is found by Read.
func Schema() []byte {
	parts := object{}
	whole := object{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Longpole scenario", "$ref": partOf(reflect.TypeFor[Scenario](), parts)["$ref"], "$defs": parts}
	text, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		panic(err) // it holds texts, numbers and maps only
	}
	return append(text, '\n')
}

// The forms of a scalar that internal/conf reads.
var (
	durations = object{"anyOf": []object{{"type": "string", "pattern": `^-?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`}, {"type": "integer", "enum": []int{0}}}}
	sizes     = object{"anyOf": []object{{"type": "integer"}, {"type": "string", "pattern": `^ *-?[0-9]+ *([kKMGT]i?B|B)? *$`}}}
	shares    = object{"anyOf": []object{{"type": "number"}, {"type": "string", "pattern": `^ *-?[0-9.]+([eE][-+]?[0-9]+)? *%? *$`}}}
)

// partOf is the schema of a type; structs are put into parts, and referred to.
func partOf(t reflect.Type, parts object) object {
	switch t.Kind() {
	case reflect.Pointer:
		return partOf(t.Elem(), parts)
	case reflect.Slice:
		return oneOrMore(partOf(t.Elem(), parts))
	case reflect.Map:
		return object{"type": "object", "additionalProperties": partOf(t.Elem(), parts)}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return shares
	case reflect.Struct:
		return structOf(t, parts)
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return durations
	case t.Kind() == reflect.Int64:
		return sizes
	}
	return object{"type": "integer"}
}

// oneOrMore is a list, of which one value may stand alone.
func oneOrMore(one object) object {
	return object{"anyOf": []object{one, {"type": "array", "items": one}}}
}

func structOf(t reflect.Type, parts object) object {
	if parts[t.Name()] == nil {
		fields := object{}
		parts[t.Name()] = object{"type": "object", "additionalProperties": false, "properties": fields} // before its fields, which may hold it again
		for _, f := range reflect.VisibleFields(t) {
			fields[f.Tag.Get("yaml")] = partOf(f.Type, parts)
		}
		switch t {
		case reflect.TypeFor[Fault]():
			fields["kind"] = object{"enum": Kinds()}
		case reflect.TypeFor[Service]():
			fields["protocol"] = object{"enum": []string{HTTP, GRPC}}
		case reflect.TypeFor[Truth]():
			classes, codes := causes()
			fields["class"], fields["code"] = oneOrMore(object{"enum": classes}), oneOrMore(object{"enum": codes})
		}
	}
	return object{"$ref": "#/$defs/" + t.Name()}
}
