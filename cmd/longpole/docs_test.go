package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/gateway"
)

// node is a part of the JSON Schema, as far as the tables of the documents need it.
type node struct {
	Ref         string           `json:"$ref"`
	Type        string           `json:"type"`
	Pattern     string           `json:"pattern"`
	Description string           `json:"description"`
	AnyOf       []node           `json:"anyOf"`
	Items       *node            `json:"items"`
	Properties  map[string]*node `json:"properties"`
	Extra       json.RawMessage  `json:"additionalProperties"`
}

// form says in a few words what a file may hold for n. links are the headings of the parts that have one.
func (n node) form(links map[string]string) string {
	if n.Ref != "" {
		name := strings.TrimPrefix(n.Ref, "#/$defs/")
		return fmt.Sprintf("[%s](#%s)", links[name], anchor(links[name]))
	}
	if len(n.AnyOf) == 2 {
		one, other := n.AnyOf[0], n.AnyOf[1]
		switch {
		case other.Type == "array":
			return "list of " + one.form(links)
		case one.Pattern == durationForm:
			return "time"
		case other.Pattern == sizeForm:
			return "size"
		case other.Pattern == shareForm:
			return "number"
		}
	}
	switch n.Type {
	case "object":
		var values node
		if json.Unmarshal(n.Extra, &values) == nil {
			return "mapping to " + values.form(links)
		}
		return "mapping"
	case "array":
		return "list of " + n.Items.form(links)
	case "string":
		return "text"
	case "boolean":
		return "true or false"
	}
	return n.Type
}

// anchor is that of a heading on the usual sites.
func anchor(heading string) string {
	return strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// plainMeaning is what a field means whose Go name and type say it all.
var plainMeaning = map[string]string{
	"certs.Pair.cert": "a certificate with its chain", "certs.Pair.key": "its private key", "discover.Config.dns": "a name server is asked",
	"discover.Config.file": "a file is watched", "discover.Config.kubernetes": "EndpointSlices are watched", "discover.File.path": "of the file",
	"discover.Kubernetes.service": "whose endpoints are used", "fault.Traces.from": "0..1; the first hash that is hit", "fault.Traces.to": "0..1; the first that is not hit any more",
	"gateway.Config.otlp": "where spans come in", "gateway.Config.limits": "what a client can make the gateway hold", "gateway.Config.overload": "what the gateway may use itself",
	"gateway.Config.tracing":    "of the gateway's own calls",
	"gateway.Config.access_log": "calls as lines of JSON", "gateway.Route.match": "which calls it takes", "gateway.Route.upstream": "where they go",
	"gateway.Version.upstream": "its name", "longpole.Config.cache": "answers that are kept", "longpole.Config.balance": "which endpoint a call goes to",
	"gateway.OTLP.grpc": "default 127.0.0.1:4317", "gateway.OTLP.http": "default 127.0.0.1:4318",
}

// fieldTable is the table of one part of the configuration, in the order of the Go type.
func fieldTable(t *testing.T, name string, def *node, links map[string]string) string {
	t.Helper()
	if def.Properties == nil {
		for i := range def.AnyOf {
			if def.AnyOf[i].Properties != nil {
				def = &def.AnyOf[i]
			}
		}
	}
	var out strings.Builder
	out.WriteString("| field | form | meaning |\n|---|---|---|\n")
	for _, f := range reflect.VisibleFields(configTypes[name]) {
		field, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		n := def.Properties[field]
		if n == nil {
			continue // an embedded struct, whose fields come by themselves
		}
		text := n.Description
		if text == "" {
			text = plainMeaning[name+"."+field]
		}
		if text == "" {
			t.Errorf("%s.%s has no description: give its Go field a comment", name, field)
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", field, n.form(links), strings.ReplaceAll(text, "|", `\|`))
	}
	return out.String()
}

var partMarks = regexp.MustCompile(`(?s)<!-- fields of ([A-Za-z.]+) -->\n.*?<!-- end -->`)

// TestConfigurationDocumentHasEveryField writes the tables of docs/configuration.md from the schema.
func TestConfigurationDocumentHasEveryField(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Defs map[string]*node `json:"$defs"`
	}
	if err := json.Unmarshal(schema, &doc); err != nil {
		t.Fatal(err)
	}
	links, missing := map[string]string{}, maps.Clone(doc.Defs)
	heading := ""
	for line := range strings.Lines(string(text)) {
		if after, ok := strings.CutPrefix(line, "#"); ok {
			heading = strings.TrimSpace(strings.TrimLeft(after, "#"))
		}
		if m := regexp.MustCompile(`<!-- fields of ([A-Za-z.]+) -->`).FindStringSubmatch(line); m != nil {
			if links[m[1]] != "" || doc.Defs[m[1]] == nil {
				t.Errorf("%s is documented twice, or is no part of the configuration", m[1])
			}
			links[m[1]] = heading
			delete(missing, m[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("docs/configuration.md has no part `<!-- fields of %s -->`", name)
	}
	want := partMarks.ReplaceAllStringFunc(string(text), func(part string) string {
		name := partMarks.FindStringSubmatch(part)[1]
		if doc.Defs[name] == nil {
			return part
		}
		return "<!-- fields of " + name + " -->\n" + fieldTable(t, name, doc.Defs[name], links) + "<!-- end -->"
	})
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Error("docs/configuration.md is not what the schema says; run: go test ./cmd/longpole -run 'TestSchemaIsCurrent|TestConfigurationDocument' -update")
	}
}

// TestExamplesOfTheDocumentsAreValid loads each YAML example. What it leaves out it has from a smallest file.
func TestExamplesOfTheDocumentsAreValid(t *testing.T) {
	const upstreams, routes = "upstreams: {orders: {endpoints: http://127.0.0.1:9001}, next: {endpoints: http://127.0.0.1:9002}}\n", "routes: [{name: all, upstream: orders}]\n"
	for _, name := range []string{"README.md", "docs/configuration.md", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			file := m[1]
			if !strings.Contains("\n"+file, "\nupstreams:") {
				file += upstreams
			}
			if !strings.Contains("\n"+file, "\nroutes:") {
				file += routes
			}
			if _, err := gateway.Load(name, []byte(file)); err != nil {
				t.Errorf("%v\nin the example\n%s", err, m[1])
			}
		}
	}
}
