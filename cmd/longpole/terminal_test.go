package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

func TestTableAlignsFiguresToTheRight(t *testing.T) {
	var b bytes.Buffer
	table(&b, [][]string{{"ROUTE", "MS", "CUT", "NOTE"}, {"orders", "7.31", "-50 %", "é"}, {"a", "1250", "+3 %", ""}, {"… 2 more"}})
	want := `ROUTE       MS    CUT  NOTE
orders    7.31  -50 %  é
a         1250   +3 %
… 2 more
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestFiguresForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.004: "0.004", 0.42: "0.42", 7.314: "7.31", 18.44: "18.4", 184.4: "184", 1250: "1250"} {
		if got := ms(v); got != want {
			t.Errorf("ms(%g) = %s; want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 %", 0.0001: "<0.1 %", 0.005: "0.5 %", 0.25: "25 %", 1: "100 %"} {
		if got := percent(v); got != want {
			t.Errorf("percent(%g) = %s; want %s", v, got, want)
		}
	}
	if got := cut("grüße", 4); got != "grü…" {
		t.Errorf("cut gives %q", got)
	}
	if got := count(1, "trace") + ", " + count(0, "span"); got != "1 trace, 0 spans" {
		t.Errorf("count gives %q", got)
	}
}

func TestProgressOverwritesOnlyOnATerminal(t *testing.T) {
	var plain bytes.Buffer
	p := newProgress(&plain)
	p.Show("too early")
	p.last = time.Time{}
	p.Show("%d spans", 7)
	p.Clear()
	if plain.String() != "7 spans\n" {
		t.Errorf("elsewhere: %q", plain.String())
	}
	var live bytes.Buffer
	p = &progress{w: &live, live: true}
	p.Show("%s", strings.Repeat("long ", 50))
	p.last = time.Time{}
	p.Show("short")
	p.Clear()
	for line := range strings.SplitSeq(live.String(), "\r") {
		if n := len([]rune(line)); n > 79 {
			t.Errorf("a line of %d columns would be wrapped: %q", n, line)
		}
	}
	if !strings.HasSuffix(live.String(), "\r"+strings.Repeat(" ", 5)+"\r") {
		t.Errorf("the line is not wiped: %q", live.String())
	}
}

// TestAnInterruptEndsAWait: nobody types into standard input, and the interrupt ends the program all the same.
func TestAnInterruptEndsAWait(t *testing.T) {
	in, typing := io.Pipe()
	defer typing.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"diagnose", "-"}, in, &out, &errs) }()
	if _, err := io.WriteString(typing, "{"); err != nil { // it reads
		t.Fatal(err)
	}
	interrupt()
	select {
	case code := <-ended:
		if code != exitAborted || errs.String() != "longpole: error: interrupted\n" {
			t.Errorf("exits %d with %q", code, errs.String())
		}
	case <-time.After(patience):
		t.Error("it goes on waiting")
	}
}
