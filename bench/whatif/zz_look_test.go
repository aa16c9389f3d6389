package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/longpole/longpole/internal/ingest"
)

func TestLook(t *testing.T) {
	f := os.Getenv("LOOK")
	if f == "" {
		t.Skip()
	}
	in, err := ingest.ReadPaths(context.Background(), []string{f}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, first := 0, in.Traces[0].Spans[0].Start
	for _, tr := range in.Traces {
		first = min(first, tr.Spans[0].Start)
	}
	for _, tr := range in.Traces {
		for i := range tr.Spans {
			s := &tr.Spans[i]
			if s.Parent == "" && s.End-s.Start > 40e6 {
				n++
				fmt.Printf("%.2fs", float64(s.Start-first)/1e9)
				for k := range tr.Spans {
					x := &tr.Spans[k]
					fmt.Printf("  %s %s %.1f %s", x.Service, x.Name, float64(x.End-x.Start)/1e6, x.Attr("longpole.cache", "url.query"))
				}
				fmt.Println()
			}
		}
	}
	fmt.Println(n, len(in.Traces))
}
