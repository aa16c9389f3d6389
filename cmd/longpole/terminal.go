package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/longpole/longpole/internal/report"
)

// isTerminal reports whether w is a character device, so that progress may overwrite its line.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progress shows one changing line on a terminal, and a line every few seconds elsewhere. Safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool
	every time.Duration
	last  time.Time
	width int
}

// lineWidth keeps a line that is overwritten from being wrapped on a terminal of the usual 80 columns.
const lineWidth = 79

// newProgress stays silent for the first second: quick work needs no progress.
func newProgress(w io.Writer) *progress {
	p := &progress{w: w, live: isTerminal(w), every: 5 * time.Second, last: time.Now()}
	if p.live {
		p.every = time.Second
	}
	return p
}

// Show replaces the line, at most as often as the output bears.
func (p *progress) Show(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	if p.live {
		p.every = 100 * time.Millisecond
	}
	line := fmt.Sprintf(format, a...)
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	line = cut(line, lineWidth)
	width := utf8.RuneCountInString(line)
	pad := max(0, p.width-width)
	p.width = width
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", pad))
}

// Clear wipes the line, before other output or at the end.
func (p *progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

// table writes rows in aligned columns, those of figures to the right. The first row is the heading; shorter rows are fine.
func table(w io.Writer, rows [][]string) {
	var widths []int
	var figures []bool
	for n, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths, figures = append(widths, 0), append(figures, true)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			figures[i] = figures[i] && (n == 0 || isFigure(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if figures[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString(cell)
			line.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// isFigure reports whether a cell holds a number, perhaps with its unit, or nothing.
func isFigure(cell string) bool {
	cell = strings.TrimLeft(cell, "+-<")
	return cell == "" || cell[0] >= '0' && cell[0] <= '9'
}

// Figures read the same on a terminal and on the page of a report.
var (
	ms      = report.Milliseconds
	percent = report.Percent
	cut     = report.Cut
	count   = report.Counted
)
