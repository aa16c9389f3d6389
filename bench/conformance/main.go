package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// env is what every suite needs to know.
type env struct {
	subjects   []*subject
	tools      string // folder with h2spec, interop_client, interop_server
	cacheTests string // folder of the HTTP cache tests; "" = none
	smuggler   string // folder of smuggler.py; "" = none
	work       string // folder of this run; removed at its end
	runs       int    // of each gRPC case
	verbose    bool
	certs
}

// suite is one way to test a subject.
type suite struct {
	name    string
	title   string
	about   string   // a paragraph for the page
	columns []string // of its table, beside the subject
	run     func(ctx context.Context, e *env, s *subject) (result, error)
}

func suites() []suite {
	return []suite{cacheSuite(), h2specSuite(), grpcSuite(), smuggleSuite(), slowSuite(), websocketSuite()}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	var e env
	var suiteList, subjectList, longpole, home, page string
	var write bool
	flag.StringVar(&suiteList, "suite", "", "comma-separated suites; default all: "+strings.Join(names(suites()), ", "))
	flag.StringVar(&subjectList, "subject", "", "comma-separated subjects; default all: longpole, nginx, haproxy, varnish, caddy")
	flag.StringVar(&longpole, "longpole", "", "the longpole program")
	flag.StringVar(&home, "home", "", "folder that keeps the tools and the results")
	flag.StringVar(&page, "page", "", "the page whose tables are written")
	flag.BoolVar(&write, "write", false, "write the page although only some suites or subjects run")
	flag.StringVar(&e.cacheTests, "cache-tests", "", "folder of the HTTP cache tests")
	flag.StringVar(&e.smuggler, "smuggler", "", "folder of smuggler.py")
	flag.IntVar(&e.runs, "runs", 100, "runs of each gRPC case")
	flag.BoolVar(&e.verbose, "v", false, "print each payload's verdict")
	flag.Parse()

	dir, err := os.MkdirTemp("", "longpole-conformance-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e.work, e.tools = dir, filepath.Join(home, "bin")
	if e.certs, err = newCerts(dir); err != nil {
		return fail(err)
	}
	e.subjects = findSubjects(longpole)
	chosen, err := choose(suites(), names(suites()), suiteList)
	if err != nil {
		return fail(err)
	}
	subjects, err := choose(e.subjects, subjectNames(e.subjects), subjectList)
	if err != nil {
		return fail(err)
	}
	book := openBook(filepath.Join(home, "results.json"))
	missed := false
	for _, st := range chosen {
		for _, s := range subjects {
			if ctx.Err() != nil {
				return fail(ctx.Err())
			}
			r := e.one(ctx, st, s)
			missed = missed || r.Missed != "" && s.name == "longpole"
			if err := book.put(r); err != nil {
				return fail(err)
			}
		}
		fmt.Printf("\n%s\n\n%s\n", st.title, book.table(st, e.subjects))
	}
	if suiteList == "" && subjectList == "" || write {
		if err := book.write(page, e.subjects); err != nil {
			return fail(err)
		}
	}
	if missed {
		return 1
	}
	return 0
}

// one runs a suite on a subject; what keeps it from running becomes the result.
func (e *env) one(ctx context.Context, st suite, s *subject) result {
	fmt.Fprintf(os.Stderr, "conformance: %s of %s ... ", st.name, s.name)
	begin := time.Now()
	r, err := result{}, error(nil)
	switch {
	case s.binary == "":
		r.Skipped = "not installed"
	case s.cannot[st.name] != "":
		r.Skipped = s.cannot[st.name]
	default:
		if r, err = st.run(ctx, e, s); err != nil {
			r.Skipped = "could not run: " + strings.NewReplacer(e.work+"/", "", "|", "/").Replace(oneLine(err.Error()))
			if s.name == "longpole" {
				r.Missed = r.Skipped
			}
		}
	}
	r.Suite, r.Subject, r.Version = st.name, s.name, s.version()
	r.Seconds = time.Since(begin).Seconds()
	switch {
	case r.Skipped != "":
		fmt.Fprintf(os.Stderr, "skipped: %s\n", r.Skipped)
	default:
		fmt.Fprintf(os.Stderr, "%s (%.0f s)\n", strings.Join(r.Cells, " · "), r.Seconds)
	}
	return r
}

func names(list []suite) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.name)
	}
	return out
}

func subjectNames(list []*subject) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.name)
	}
	return out
}

// choose returns those of all whose names stand in the comma-separated list; an empty list means all.
func choose[T any](all []T, names []string, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var out []T
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("unknown %q; want some of %s", name, strings.Join(names, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "conformance: error:", err)
	return 2
}
