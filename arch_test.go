package longpole_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/longpole/longpole"

// row is one line of the layer table in ARCHITECTURE.md.
type row struct {
	layer   int
	modules []string
}

func layerTable(t *testing.T) map[string]row {
	t.Helper()
	doc, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]row{}
	line := regexp.MustCompile(`(?m)^\| (\d) \| (\S+) \| [^|]* \|([^|]*)\|$`)
	for _, m := range line.FindAllStringSubmatch(string(doc), -1) {
		layer, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := table[m[2]]; twice {
			t.Errorf("%s stands twice in ARCHITECTURE.md", m[2])
		}
		table[m[2]] = row{layer, strings.Fields(m[3])}
	}
	return table
}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within gives the path of a package of ours relative to the module; "." is the root.
func within(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

// TestLayers holds the code to the table in ARCHITECTURE.md: a package imports only packages of a lower layer,
// and only the third-party modules that its row names.
func TestLayers(t *testing.T) {
	table := layerTable(t)
	seen := map[string]bool{}
	for _, p := range listPackages(t) {
		me, _ := within(p.ImportPath)
		seen[me] = true
		mine, ok := table[me]
		if !ok {
			t.Errorf("%s: not in the layer table of ARCHITECTURE.md", me)
			continue
		}
		for _, imp := range p.Imports {
			if dep, ours := within(imp); ours {
				if theirs, ok := table[dep]; !ok || theirs.layer >= mine.layer {
					t.Errorf("%s (layer %d) imports %s (layer %d)", me, mine.layer, dep, theirs.layer)
				}
			} else if thirdParty(imp) && !allowed(imp, mine.modules) {
				t.Errorf("%s imports %s, which its row in ARCHITECTURE.md does not allow", me, imp)
			}
		}
	}
	for name := range table {
		if !seen[name] {
			t.Errorf("%s: in ARCHITECTURE.md but not in the tree", name)
		}
	}
}

func thirdParty(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return strings.Contains(first, ".")
}

func allowed(imp string, modules []string) bool {
	for _, m := range modules {
		if imp == m || strings.HasPrefix(imp, m+"/") {
			return true
		}
	}
	return false
}
