package diagnose

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// headings are those that each page about a finding has, in this order.
var headings = []string{"What it means", "How it is detected", "Evidence", "False positives", "What to do", "Trade-off", "Source"}

func TestEachFindingHasItsPage(t *testing.T) {
	files, err := filepath.Glob("rule_*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	codes := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, code := range regexp.MustCompile(`"(LP1\d\d)"`).FindAllStringSubmatch(string(text), -1) {
			codes[code[1]] = true
		}
	}
	if len(codes) < 25 {
		t.Errorf("%d codes", len(codes))
	}
	for _, code := range ordered(codes) {
		pages, _ := filepath.Glob("../../docs/findings/" + code + "-*.md")
		if len(pages) != 1 {
			t.Errorf("%s: %d pages", code, len(pages))
			continue
		}
		text, err := os.ReadFile(pages[0])
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(text), -1) {
			got = append(got, h[1])
		}
		if strings.Join(got, "|") != strings.Join(headings, "|") {
			t.Errorf("%s: headings %q", pages[0], got)
		}
	}
}

func TestCausesAreCalledAsTheirPages(t *testing.T) {
	known := map[string]bool{"LP105": true} // which names no cause
	for _, c := range Causes() {
		known[c.Code] = true
		pages, _ := filepath.Glob("../../docs/findings/" + c.Code + "-*.md")
		if len(pages) != 1 {
			t.Fatalf("%s: %d pages", c.Code, len(pages))
		}
		text, err := os.ReadFile(pages[0])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# "+c.Code+" "+c.Name+": ") || !strings.Contains(string(text), c.Class) {
			t.Errorf("%s does not begin with %s %s, or does not name the class %s", pages[0], c.Code, c.Name, c.Class)
		}
	}
	if pages, _ := filepath.Glob("../../docs/findings/LP*.md"); len(pages) != len(known) {
		t.Errorf("%d pages for %d findings", len(pages), len(known))
	}
}
