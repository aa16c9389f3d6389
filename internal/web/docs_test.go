package web_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of metrics in docs/operations.md anew")

// sources are the files of this package, without its tests, and those with pattern.
func sources(t *testing.T, pattern ...string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	for _, p := range pattern {
		more, _ := filepath.Glob(p)
		names = append(names, more...)
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// literal is the text of a string constant; "" for anything else.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		text, _ := strconv.Unquote(l.Value)
		return text
	}
	return ""
}

// metricTable has a row for each prometheus.NewDesc of this package, and of package fleet.
func metricTable(t *testing.T) string {
	t.Helper()
	var rows []string
	for _, file := range sources(t, "../fleet/*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) != 4 {
				return true
			}
			if f, ok := c.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "NewDesc" {
				return true
			}
			var labels []string
			if list, ok := c.Args[2].(*ast.CompositeLit); ok {
				for _, e := range list.Elts {
					labels = append(labels, literal(e))
				}
			}
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", literal(c.Args[0]), strings.Join(labels, ", "), literal(c.Args[1])))
			return true
		})
	}
	slices.Sort(rows)
	return "| metric | labels | what |\n|---|---|---|\n" + strings.Join(rows, "")
}

func operationsDocument(t *testing.T) (path, text string) {
	t.Helper()
	path = filepath.Join("..", "..", "docs", "operations.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(data)
}

func TestEveryMetricIsDocumented(t *testing.T) {
	path, text := operationsDocument(t)
	part := regexp.MustCompile(`(?s)<!-- metrics -->\n.*?<!-- end -->`)
	want := part.ReplaceAllLiteralString(text, "<!-- metrics -->\n"+metricTable(t)+"<!-- end -->")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != text || !part.MatchString(text) {
		t.Error("docs/operations.md is not what the metrics say; run: go test ./internal/web -run TestEveryMetricIsDocumented -update")
	}
	for _, m := range regexp.MustCompile(`longpole_[a-z0-9_]+`).FindAllString(text, -1) {
		name := strings.TrimSuffix(strings.TrimSuffix(m, "_count"), "_bucket")
		if !strings.Contains(want, "| `"+name+"` |") {
			t.Errorf("docs/operations.md names %s, which is not there", m)
		}
	}
}

func TestEveryPathIsDocumented(t *testing.T) {
	_, text := operationsDocument(t)
	pattern := regexp.MustCompile(`^(GET|POST|DELETE) (/.*)$`)
	seen := 0
	for _, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok {
				return true
			}
			m := pattern.FindStringSubmatch(literal(l))
			if m == nil || m[2] == "/api/" || strings.HasPrefix(m[2], "/debug/pprof/") && m[2] != "/debug/pprof/" {
				return true
			}
			seen++
			if !regexp.MustCompile("[ `]" + regexp.QuoteMeta(strings.TrimSuffix(m[2], "/")) + "[`?/]").MatchString(text) {
				t.Errorf("docs/operations.md does not name %s", l.Value)
			}
			return true
		})
	}
	if seen < 20 {
		t.Errorf("only %d paths were found", seen)
	}
}

// named fails unless the document has what the pattern's first group finds in a file of the gateway.
func named(t *testing.T, file, pattern string, least int) {
	t.Helper()
	_, text := operationsDocument(t)
	files, err := filepath.Glob(filepath.Join("..", "gateway", file))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1) {
			found[m[1]] = true
		}
	}
	for word := range found {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("docs/operations.md does not name `%s`", word)
		}
	}
	if len(found) < least {
		t.Errorf("only %d words were found", len(found))
	}
}

func TestEveryReasonIsDocumented(t *testing.T) {
	named(t, "*.go", `refusal\{[^,}]+, "([a-z_]+)"`, 20)
}

func TestEveryFieldOfTheAccessLogIsDocumented(t *testing.T) {
	named(t, "accesslog.go", `(?:slog\.(?:String|Int|Int64|Float64)|optional)\("([a-z_]+)"`, 15)
}
