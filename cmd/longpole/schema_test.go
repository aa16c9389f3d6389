package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	check "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/longpole/longpole/internal/gateway"
)

var update = flag.Bool("update", false, "write schema.json anew")

// The forms of a scalar that internal/conf reads.
const (
	durationForm = `^-?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$|^0$`
	sizeForm     = `^ *-?[0-9]+ *([kKMGT]i?B|B)? *$`
	shareForm    = `^ *-?[0-9.]+([eE][-+]?[0-9]+)? *%? *$`
)

func texts(pattern, example string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: []any{example}}
}

// scalar is the schema of what a file may hold for a field of type t.
func scalar(t reflect.Type) *jsonschema.Schema {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{texts(durationForm, "250ms"), {Type: "integer", Enum: []any{0}}}}
	case t.Kind() == reflect.Int64:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer"}, texts(sizeForm, "64KiB")}}
	case t.Kind() == reflect.Float64:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "number"}, texts(shareForm, "5%")}}
	case t.Kind() != reflect.Struct && reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// definition names a type in the schema; one without a name stands where it is used.
func definition(t reflect.Type) string {
	if t.Name() == "" {
		return ""
	}
	return t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:] + "." + t.Name()
}

// generate makes the schema of the configuration, with the comments of the Go types as descriptions.
func generate(t *testing.T) []byte {
	t.Helper()
	t.Chdir("../..")
	r := &jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, Mapper: scalar, Anonymous: true, Namer: definition}
	for _, dir := range []string{".", "balance", "breaker", "cache", "limit", "retry", "batch", "internal"} {
		comments(t, r, dir)
	}
	s := r.Reflect(gateway.Config{})
	s.Title = "Longpole's configuration"
	for name, def := range s.Definitions {
		inFileTerms(name, def)
		loosen(def)
		if textual[name] {
			s.Definitions[name] = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, def}, Description: def.Description}
			def.Description = ""
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// comments reads those of one folder; of the root without the folders in it.
func comments(t *testing.T, r *jsonschema.Reflector, dir string) {
	t.Helper()
	paths := []string{dir}
	if dir == "." {
		paths = nil
		files, err := os.ReadDir(".")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".go") && !strings.HasSuffix(f.Name(), "_test.go") {
				paths = append(paths, f.Name())
			}
		}
	}
	for _, path := range paths {
		if err := r.AddGoComments("github.com/longpole/longpole", path); err != nil {
			t.Fatal(err)
		}
	}
}

// goWords are words of Go in comments, and what they are called in a file.
var goWords = strings.NewReplacer(
	"nil = ", "left out = ", "longpole.Config.Safe", "the safe defaults", "Config.Trust", "trust", "Limits.StreamIdle", "limits.stream_idle",
	"P2C, RoundRobin, Weighted, PeakEWMA or Prequal; default P2C", "p2c, round_robin, weighted, peak_ewma or prequal; default p2c", "used by Prequal only", "used by prequal only",
	"HTTP01 or TLSALPN01", "http-01 or tls-alpn-01", "default LetsEncrypt", "default that of Let's Encrypt", "Require or Optional; default Require", "require or optional; default require",
	"Addresses or Services; default by Name: Services when it", "a or srv; default by name: srv when it", "of Addresses; default 80", "of type a; default 80",
)

// inFileTerms calls the fields that descriptions name as a file does.
func inFileTerms(name string, def *jsonschema.Schema) {
	t := configTypes[name]
	if t == nil || def.Properties == nil {
		return
	}
	say := func(text string) string {
		text = goWords.Replace(text)
		for _, f := range reflect.VisibleFields(t) {
			tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if tag != "" && f.Name != tag {
				text = regexp.MustCompile(`\b`+f.Name+`\b`).ReplaceAllString(text, tag)
			}
		}
		return text
	}
	for p := def.Properties.Oldest(); p != nil; p = p.Next() {
		p.Value.Description = say(p.Value.Description)
	}
}

// configTypes are the structs of the configuration by their names in the schema.
var configTypes = make(map[string]reflect.Type)

// textual are the structs that a text alone may stand for.
var textual = make(map[string]bool)

func init() {
	seen := make(map[reflect.Type]bool)
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if seen[t] {
				return
			}
			seen[t] = true
			configTypes[definition(t)] = t
			if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				textual[definition(t)] = true
			}
			for f := range t.Fields() {
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[gateway.Config]())
}

// loosen lets one item stand for a list of one, and takes {} and null for a part with its defaults, as the decoder does.
func loosen(s *jsonschema.Schema) {
	if s.Properties == nil {
		return
	}
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		if v := p.Value; v.Type == "array" && v.Items != nil {
			p.Value = &jsonschema.Schema{Description: v.Description, AnyOf: []*jsonschema.Schema{v.Items, {Type: "array", Items: v.Items}}}
		}
	}
}

// TestSchemaIsCurrent keeps schema.json equal to what the Go types say.
func TestSchemaIsCurrent(t *testing.T) {
	want := generate(t)
	if *update {
		if err := os.WriteFile("cmd/longpole/schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(schema, want) {
		t.Error("schema.json is not what the types say; run: go test ./cmd/longpole -run TestSchemaIsCurrent -update")
	}
	if bytes.Contains(schema, []byte(`"items": {}`)) {
		t.Error("a list of anything is in the schema")
	}
}

// TestSchemaTakesWhatTheGatewayTakes holds the schema to the decoder on real files and on broken ones.
func TestSchemaTakesWhatTheGatewayTakes(t *testing.T) {
	var doc any
	if err := json.Unmarshal(schema, &doc); err != nil {
		t.Fatal(err)
	}
	c := check.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	const base = "upstreams:\n  a:\n    endpoints: [http://127.0.0.1:9001]\nroutes:\n  - name: all\n    upstream: a\n"
	for _, c := range []struct {
		name, text string
		valid      bool
	}{
		{"smallest", base, true},
		{"one listener as a text", "listen: 127.0.0.1:8080\n" + base, true},
		{"listeners as mappings", "listen:\n  - address: 127.0.0.1:8080\n" + base, true},
		{"units", base + "    policy:\n      timeout: 250ms\n      cache: {max_bytes: 64MiB}\n      retry: {budget_ratio: 5%}\nlimits: {header_bytes: 64KiB}\n", true},
		{"an unknown field", base + "    polcy: {}\n", false},
		{"a duration without unit", base + "    policy: {timeout: 250}\n", false},
		{"a size that is none", base + "limits: {header_bytes: much}\n", false},
		{"a list where a mapping stands", "upstreams: []\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v any
			if err := yaml.Unmarshal([]byte(c.text), &v); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			v, err = check.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := compiled.Validate(v); (err == nil) != c.valid {
				t.Errorf("the schema says %v, want valid = %t", err, c.valid)
			}
			if _, err := gateway.Load("f.yaml", []byte(c.text)); (err == nil) != c.valid {
				t.Errorf("the gateway says %v, want valid = %t", err, c.valid)
			}
		})
	}
}
