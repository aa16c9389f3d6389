package review

import (
	"html/template"
	"io"
)

var pageTemplate = template.Must(template.New("review").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
th,td{border-bottom:1px solid #d5dae0;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{font-weight:600} tr.bad td{background:#fdecea}
@media (prefers-color-scheme:dark){body{color:#e6e9ed;background:#15181c}th,td{border-color:#39404a}tr.bad td{background:#4a1f1c}}
</style></head><body>
<h1>{{.Title}}</h1>
<p>{{.Headline}}</p>
{{range .Sections}}{{$bad := .Bad}}<h2>{{.Title}}</h2>
{{if .Note}}<p>{{.Note}}</p>
{{end}}{{if .Rows}}<table><thead><tr>{{range .Head}}<th scope="col">{{.}}</th>{{end}}</tr></thead><tbody>
{{range $i, $row := .Rows}}<tr{{if index $bad $i}} class="bad"{{end}}>{{range $row}}<td>{{.}}</td>{{end}}</tr>
{{end}}</tbody></table>
{{end}}{{end}}</body></html>
`))

// HTML writes r as one page that needs nothing else.
func (r *Review) HTML(w io.Writer) error {
	all := r.sections()
	for i := range all {
		if all[i].Bad == nil {
			all[i].Bad = map[int]bool{}
		}
	}
	return pageTemplate.Execute(w, struct {
		Title, Headline string
		Sections        []section
	}{r.title(), r.Headline(), all})
}
