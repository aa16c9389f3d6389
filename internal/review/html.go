package review

import (
	"html/template"
	"io"
	"strings"
	"unicode/utf8"
)

var pageTemplate = template.Must(template.New("review").Funcs(template.FuncMap{"odd": func(k int) bool { return k%2 == 1 }}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{{.Title}}</title>
<style>
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d5dae0;--ground:#fff;--band:#f6f8fa;--bad:#a40e26;--bad-ground:#ffebe9;--warn:#7a4b00;--warn-ground:#fff4d6;--good:#1a6b32;--good-ground:#e3f6e8}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--line:#39404a;--ground:#15181c;--band:#1d2127;--bad:#ffa198;--bad-ground:#4a1f1c;--warn:#f0c36a;--warn-ground:#3d2f10;--good:#7ee08f;--good-ground:#173a22}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:84rem;padding:0 1rem;color:var(--ink);background:var(--ground)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}.lead{font-size:1.05rem;margin:.3rem 0 0}.note{color:var(--soft);margin:.2rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
td{min-width:4.5rem;max-width:30rem;overflow-wrap:break-word}td.long{min-width:16rem}td.short{white-space:nowrap}code{background:var(--band);padding:0 .2rem;border-radius:.2rem;font-size:.9em}th{font-weight:600;background:var(--band);white-space:nowrap}
.tag{display:inline-block;border-radius:.3rem;padding:0 .4rem}
.bad{color:var(--bad);background:var(--bad-ground);font-weight:600}.warn{color:var(--warn);background:var(--warn-ground)}.good{color:var(--good);background:var(--good-ground)}.quiet{color:var(--soft)}
pre{background:var(--band);padding:.6rem .8rem;overflow-x:auto;font-size:.85rem}
nav a{margin-right:.9rem;color:inherit}nav{margin:.8rem 0 0;font-size:.9rem}
@media print{.wide{overflow:visible}nav{display:none}}
</style></head><body>
<h1>{{.Title}}</h1>
<p class="lead">{{.Headline}}</p>
<nav aria-label="Sections">{{range $i, $s := .Sections}}<a href="#s{{$i}}">{{$s.Title}}</a>{{end}}</nav>
{{range $i, $s := .Sections}}<section><h2 id="s{{$i}}">{{.Title}}</h2>
{{if .Note}}<p class="note">{{.Note}}</p>
{{end}}{{if .Rows}}<div class="wide" tabindex="0" role="region" aria-labelledby="s{{$i}}"><table><thead><tr>{{range .Head}}<th scope="col">{{.}}</th>{{end}}</tr></thead><tbody>
{{range .Rows}}<tr>{{range .}}<td{{with .Width}} class="{{.}}"{{end}}>{{if .Tone}}<span class="tag {{.Tone}}">{{.Text}}</span>{{else}}{{range $k, $part := .Parts}}{{if odd $k}}<code>{{$part}}</code>{{else}}{{$part}}{{end}}{{end}}{{end}}</td>{{end}}</tr>
{{end}}</tbody></table></div>
{{end}}{{if .After}}<p class="note">Overdue; read each before it is run, in staging first:</p><pre tabindex="0">{{range .After}}{{.}}
{{end}}</pre>
{{end}}</section>
{{end}}</body></html>
`))

// Width is how a page lays the cell out: a date or a number stays in one line, a sentence gets room.
func (c cell) Width() string {
	switch n := utf8.RuneCountInString(c.Text); {
	case n <= 24:
		return "short"
	case n > 60:
		return "long"
	}
	return ""
}

// Parts is the text between its backquotes; every second one is code.
func (c cell) Parts() []string { return strings.Split(c.Text, "`") }

// HTML writes r as one page that needs nothing else.
func (r *Review) HTML(w io.Writer) error {
	return pageTemplate.Execute(w, struct {
		Title, Headline string
		Sections        []section
	}{r.title(), r.Headline(), r.sections()})
}
