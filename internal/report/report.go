// Package report writes a diagnosis as one HTML page that needs nothing else: no network, no other file, and no script to
// be read. A script adds what moves: the quantile slider of the critical path.
//
// The page carries a Content-Security-Policy that allows its own style and script by their hashes and nothing more. What
// traces hold is shown as text only. It stays below [MaxBytes]: of what is too much, the routes that lose most time stay.
package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/longpole/longpole/internal/advise"
	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/evidence"
)

// The bounds of a page.
const (
	MaxBytes  = 1 << 20
	MaxRoutes = 20 // that are shown one by one; the table of routes has more
)

// Page is what is shown.
type Page struct {
	Report   advise.Report
	Pictures []diagnose.Picture // of the first routes of Report, in their order; routes without one have no drawings
	Facts    evidence.Facts     // that the diagnosis was made with; zero = none
	Made     time.Time          // zero = not told
	Version  string             // of longpole; "" = not told
}

//go:embed page/page.html
var pageHTML string

//go:embed page/style.css
var style string

//go:embed page/page.js
var script string

var page = template.Must(template.New("page").Funcs(functions).Parse(pageHTML))

// policy lets a browser use the style and the script that are in the page, and load nothing.
func policy() string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(style) + "; script-src " + hash(script) + "; img-src data:; base-uri 'none'; form-action 'none'"
}

// detail is how much of a report is shown.
type detail struct {
	routes, rows, bars, findings int
	snippets                     bool
}

var details = []detail{
	{MaxRoutes, 200, 100, 30, true},
	{MaxRoutes, 100, 40, 12, true},
	{10, 50, 30, 8, true},
	{5, 30, 25, 5, false},
	{2, 20, 20, 3, false},
}

// Write writes the page. The error is that of w.
func Write(w io.Writer, p Page) error {
	var out bytes.Buffer
	for _, d := range details {
		out.Reset()
		if err := page.Execute(&out, p.content(d)); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		if out.Len() < MaxBytes {
			break
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
