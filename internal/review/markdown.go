package review

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes r for people and for version control.
func (r *Review) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", escape(r.title()), escape(r.Headline()))
	for _, s := range r.sections() {
		fmt.Fprintf(&b, "\n## %s\n", s.Title)
		if s.Note != "" {
			fmt.Fprintf(&b, "\n%s\n", escape(s.Note))
		}
		if len(s.Rows) > 0 {
			b.WriteString("\n")
			line(&b, cells(s.Head...))
			b.WriteString("|" + strings.Repeat("---|", len(s.Head)) + "\n")
			for _, row := range s.Rows {
				line(&b, row)
			}
		}
		if len(s.After) > 0 {
			b.WriteString("\nOverdue; read each before it is run, in staging first:\n\n")
			for _, command := range s.After {
				fmt.Fprintf(&b, "    %s\n", oneLine(command))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func line(b *strings.Builder, row []cell) {
	b.WriteString("|")
	for _, c := range row {
		text := escape(c.Text)
		if c.Tone == "bad" {
			text = "**" + text + "**"
		}
		b.WriteString(" " + text + " |")
	}
	b.WriteString("\n")
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ").Replace

// escape keeps text from elsewhere, such as names in traces, from becoming markup or a row.
var escape = strings.NewReplacer("|", "\\|", "\n", " ", "\r", " ", "<", "&lt;", "[", "\\[", "*", "\\*", "`", "'").Replace
