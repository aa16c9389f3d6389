package longpole_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The limits of the house. Raise one only with its reason beside it.
const (
	maxFileLines = 700
	maxFuncLines = 80
)

// mayStart names the packages that own goroutines. That of httppolicy reads a body that knows of no deadline.
var mayStart = []string{
	".", "httppolicy", "internal/gateway", "internal/rollout", "internal/load", "internal/lab", "internal/ingest", "cmd/longpole",
	"internal/certs", "internal/discover", "internal/offload", "internal/fleet", "internal/probe",
}

// clockless names the packages that are told the time, so that their tests need none.
var clockless = []string{
	"call", "setting", "retry", "breaker", "balance", "cache", "batch", "limit", "internal/stats", "internal/trace",
	"internal/conf", "internal/diagnose", "internal/advise", "internal/routing", "internal/httpcache", "internal/fault", "internal/payload",
	"internal/recording", "internal/evidence", "internal/judge", "internal/slo", "internal/slo/interop", "internal/scale", "internal/rca", "internal/store", "internal/staging", "internal/scenario", "internal/review", "internal/report", "internal/ingest",
}

var clockFuncs = []string{"Now", "Since", "Until", "Sleep", "NewTimer", "NewTicker", "After", "AfterFunc", "Tick"}

func TestHouse(t *testing.T) {
	fset := token.NewFileSet()
	documented := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == "node_modules" || d.Name() == "tools" || d.Name() == "bench") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if n := fset.File(f.Pos()).LineCount(); n > maxFileLines {
			t.Errorf("%s: %d lines, the limit is %d", path, n, maxFileLines)
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		documented[dir] = documented[dir] || f.Doc != nil
		house{t, fset, dir}.check(f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

// house checks the files of one directory.
type house struct {
	t    *testing.T
	fset *token.FileSet
	dir  string
}

func (h house) check(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			h.function(n)
		case *ast.GenDecl:
			h.declaration(n)
		case *ast.GoStmt:
			if !slices.Contains(mayStart, h.dir) {
				h.t.Errorf("%s: go statement in a package that owns no goroutines", h.fset.Position(n.Pos()))
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && x.Name == "time" && slices.Contains(clockless, h.dir) && slices.Contains(clockFuncs, n.Sel.Name) {
				h.t.Errorf("%s: time.%s in a package that is told the time", h.fset.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}

func (h house) function(n *ast.FuncDecl) {
	from, to := h.fset.Position(n.Pos()), h.fset.Position(n.End())
	if l := to.Line - from.Line + 1; l > maxFuncLines {
		h.t.Errorf("%s: %s has %d lines, the limit is %d", from, n.Name.Name, l, maxFuncLines)
	}
	if n.Name.IsExported() && n.Doc == nil && (n.Recv == nil || exportedReceiver(n.Recv)) {
		h.t.Errorf("%s: %s has no doc comment", from, n.Name.Name)
	}
}

func (h house) declaration(n *ast.GenDecl) {
	if n.Tok != token.TYPE {
		return
	}
	for _, s := range n.Specs {
		if spec := s.(*ast.TypeSpec); spec.Name.IsExported() && n.Doc == nil && spec.Doc == nil {
			h.t.Errorf("%s: type %s has no doc comment", h.fset.Position(spec.Pos()), spec.Name.Name)
		}
	}
}

func exportedReceiver(recv *ast.FieldList) bool {
	t := recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}
