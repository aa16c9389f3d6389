package scenario

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

const page = "../../docs/lab.md"

// blocks are the indented examples of the page that are scenarios.
func blocks(text string) (all []string) {
	var b strings.Builder
	for line := range strings.Lines(text + "\nend\n") {
		switch rest, indented := strings.CutPrefix(line, "    "); {
		case indented:
			b.WriteString(rest)
		case strings.HasPrefix(b.String(), "name:"):
			all = append(all, b.String())
			b.Reset()
		default:
			b.Reset()
		}
	}
	return all
}

func TestExamplesOfThePageAreScenarios(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	examples := blocks(string(text))
	if len(examples) < 2 {
		t.Errorf("%d worked examples; want two", len(examples))
	}
	for _, x := range examples {
		if _, err := Read("docs/lab.md", []byte(x)); err != nil {
			t.Error(err)
		}
	}
}

func TestEveryFieldStandsOnThePage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(x reflect.Type) {
		switch x.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(x.Elem())
		case reflect.Struct:
			if seen[x] {
				return
			}
			seen[x] = true
			for _, f := range reflect.VisibleFields(x) {
				if name := f.Tag.Get("yaml"); !strings.Contains(string(text), name) {
					t.Errorf("%s.%s: %q is not on the page", x.Name(), f.Name, name)
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[Scenario]())
	for _, kind := range Kinds() {
		if !strings.Contains(string(text), "| `"+kind+"` |") {
			t.Errorf("the kind of fault %q is not on the page", kind)
		}
	}
}
