// Ingest measures how many spans a CPU-second takes from the bytes of OTLP to a verdict, step by step.
//
// The input is made by a seeded generator: a shop whose processes send their spans in batches of 512, 8 to 12
// attributes a span and 8 of each resource, the spans of a trace far apart. A folder of trace files may be given as
// well. CPU seconds are those of the whole process, the garbage collector included, as getrusage tells them.
//
// Usage: ingest [-spans N] [-for DURATION] [-file PATH -size BYTES] [-minutes N] [FOLDER]
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/ingest"
	"github.com/longpole/longpole/internal/trace"
)

func main() {
	spans := flag.Int("spans", 800_000, "spans of the generated input")
	atLeast := flag.Duration("for", 3*time.Second, "CPU time that each step is repeated for")
	file := flag.String("file", "", "write a file of OTLP messages of about -size bytes instead, as the Collector writes it, and read it back")
	size := flag.Int64("size", 2<<30, "of -file, bytes")
	minutes := flag.Int("minutes", 0, "feed the live assembler a million spans a minute for so many minutes of its time instead")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the last step to this file")
	flag.Parse()
	if *minutes == 0 && os.Getenv("GOGC") == "" { // as the commands that read files do
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(memory)
	}
	err := error(nil)
	switch {
	case *file != "":
		err = large(*file, *size)
	case *minutes > 0:
		live(*minutes)
	default:
		err = steps(*spans, *atLeast, *profile, flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

// memory is the soft limit of the commands that read files.
const memory = 3 << 29

// An input is telemetry as it comes in.
type input struct {
	messages [][]byte
	stream   []byte // the same behind their lengths
	spans    int
}

func generate(spans int) input {
	var in input
	in.spans = newGenerator(1, func(m []byte) {
		in.messages = append(in.messages, m)
		in.stream = append(binary.BigEndian.AppendUint32(in.stream, uint32(len(m))), m...)
	}).generate(spans)
	return in
}

// read is what a command does with a file of this content, except that it keeps all of it, however much that is.
func (in *input) read(workers int) (ingest.Input, error) {
	return ingest.Limits{Workers: workers, Bytes: 8 << 30}.ReadPaths(context.Background(), []string{"-"}, bytes.NewReader(in.stream), nil)
}

// A rate is what one step did.
type rate struct {
	name    string
	spans   int
	cpu     time.Duration
	fastest float64 // spans per second of the clock, in the best window
}

func (r rate) perCPU() float64 { return float64(r.spans) / r.cpu.Seconds() }

// cpu is what the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it takes no argument that could be wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// windows is how often each step is measured. The best counts: what else runs on the machine only ever adds.
const windows = 3

// measure repeats a step on one processor, in every window until it used its part of atLeast. step returns the spans it took.
func measure(name string, atLeast time.Duration, step func() int) rate {
	return inTurns(name, atLeast, 1, func(int) int { return step() })[0]
}

// both measures a step on one processor and on two, in turns: what else runs on the machine changes from second to second, and slows
// both down alike.
func both(name string, atLeast time.Duration, step func(processors int) int) (one, two rate) {
	r := inTurns(name, atLeast, 2, step)
	return r[0], r[1]
}

// inTurns measures a step on 1 up to so many processors.
func inTurns(name string, atLeast time.Duration, most int, step func(processors int) int) []rate {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	best := make([]rate, most)
	for i := range best {
		best[i].name = name
		if most > 1 {
			best[i].name = fmt.Sprintf("%s, cores: %d", name, i+1)
		}
	}
	for window := range windows + 1 {
		for i := range best {
			runtime.GOMAXPROCS(i + 1)
			runtime.GC()
			if window == 0 {
				step(i + 1) // caches and the size of the heap settle
				continue
			}
			best[i].take(atLeast/windows, func() int { return step(i + 1) })
		}
	}
	return best
}

// take measures one window, and keeps it if it is the best.
func (r *rate) take(atLeast time.Duration, step func() int) {
	var x rate
	began, from := time.Now(), cpu()
	for x.cpu < atLeast {
		x.spans += step()
		x.cpu = cpu() - from
	}
	if r.spans == 0 || x.perCPU() > r.perCPU() {
		r.spans, r.cpu = x.spans, x.cpu
	}
	r.fastest = max(r.fastest, float64(x.spans)/time.Since(began).Seconds())
}

func steps(spans int, atLeast time.Duration, profile, folder string) error {
	in := generate(spans)
	if debug.SetMemoryLimit(-1) == memory { // a command does not hold its input, twice, and what it made of it before
		debug.SetMemoryLimit(4 * memory)
	}
	read, err := in.read(1)
	if err != nil {
		return err
	}
	fmt.Printf("input: %d spans in %d traces, %d messages, %d bytes a span; %s, GOGC=%s\n",
		in.spans, len(read.Traces), len(in.messages), len(in.stream)/in.spans, runtime.Version(), or(os.Getenv("GOGC"), "400"))
	show := func(r rate) {
		fmt.Printf("%-42s %6.2f M spans per CPU-second  %6.2f M per second\n", r.name, r.perCPU()/1e6, r.fastest/1e6)
	}
	pair := func(one, two rate) {
		show(one)
		show(two)
		fmt.Printf("2 cores are %.2f times as fast as 1\n", two.fastest/one.fastest)
	}
	show(measure("decode", atLeast, in.decode))
	pair(both("decode, group", atLeast, in.group))
	for _, r := range paths(read.Traces, atLeast) {
		show(r)
	}
	show(measure("traces to verdict", atLeast, func() int { diagnose.Run(read.Traces, diagnose.Options{}); return in.spans }))
	read = ingest.Input{}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	pair(both("decode to verdict", atLeast, in.verdict))
	pprof.StopCPUProfile()
	if folder == "" {
		return nil
	}
	return corpus(folder, atLeast, show)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (in *input) decode() int {
	n := 0
	for _, m := range in.messages {
		if err := ingest.DecodeOTLP(m, func(trace.Span) { n++ }); err != nil {
			panic(err) // the messages are our own
		}
	}
	return n
}

func (in *input) group(workers int) int {
	read, err := in.read(workers)
	if err != nil {
		panic(err)
	}
	return read.Stats.Spans
}

func (in *input) verdict(workers int) int {
	read, err := in.read(workers)
	if err != nil {
		panic(err)
	}
	if r := diagnose.Run(read.Traces, options(workers)); len(r.Routes) == 0 {
		panic("no routes")
	}
	return read.Stats.Spans
}

// options lets a run use so many goroutines.
func options(workers int) (o diagnose.Options) {
	if workers > 1 {
		o.Clock.Each = func(n int, do func(i int)) {
			var next atomic.Int64
			var wg sync.WaitGroup
			for range min(workers, n) {
				wg.Go(func() {
					for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
						do(i)
					}
				})
			}
			wg.Wait()
		}
	}
	return o
}

// paths measures the critical path with and without making the trees.
func paths(traces []trace.Trace, atLeast time.Duration) []rate {
	trees := make([]*diagnose.Tree, len(traces))
	build := func() (n int) {
		for i := range traces {
			trees[i] = diagnose.Build(traces[i], diagnose.ClockOptions{})
			n += len(traces[i].Spans)
		}
		return n
	}
	built := measure("tree and critical path", atLeast, func() int {
		n := build()
		walk(trees)
		return n
	})
	n := build()
	return []rate{measure("critical path", atLeast, func() int { walk(trees); return n }), built}
}

func walk(trees []*diagnose.Tree) {
	var path []diagnose.Section
	for _, t := range trees {
		if len(t.Roots) > 0 {
			path = t.AppendPath(path[:0], t.Roots[0])
		}
	}
}

// corpus measures files as a command reads them, to the verdict.
func corpus(folder string, atLeast time.Duration, show func(rate)) error {
	read := func(workers int) (ingest.Input, error) {
		return ingest.Limits{Workers: workers}.ReadPaths(context.Background(), []string{folder}, nil, nil)
	}
	in, err := read(1)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d spans in %d traces, %d files\n", folder, in.Stats.Spans, in.Stats.Traces, in.Stats.Files)
	step := func() int {
		in, err := read(1)
		if err != nil {
			panic(err)
		}
		diagnose.Run(in.Traces, diagnose.Options{})
		return in.Stats.Spans
	}
	for _, r := range paths(in.Traces, atLeast) {
		show(r)
	}
	show(measure("files to verdict, 1 core", atLeast, step))
	return nil
}

// large writes a file of about size bytes, reads it and tells what memory that took.
func large(path string, size int64) error {
	if info, err := os.Stat(path); err != nil || info.Size() < size/2 {
		return write(path, size)
	}
	began, from, steps := time.Now(), cpu(), 0
	in, err := ingest.Limits{}.ReadPaths(context.Background(), []string{path}, nil, func(ingest.Progress) { steps++ })
	if err != nil {
		return err
	}
	reading, took := rate{cpu: cpu() - from, spans: in.Stats.Spans + in.Stats.DroppedSpans}, time.Since(began)
	r := diagnose.Run(in.Traces, options(runtime.GOMAXPROCS(0)))
	fmt.Printf("%d spans, of which %d in %d traces are kept; read in %.1f s (%.2f M spans per CPU-second), in all %.1f s; %d reports of progress, %d routes; peak memory %s\n",
		reading.spans, in.Stats.Spans, in.Stats.Traces, took.Seconds(), reading.perCPU()/1e6, time.Since(began).Seconds(), steps, len(r.Routes), peak())
	for _, w := range in.Warnings {
		fmt.Println("warning:", w)
	}
	return nil
}

// write repeats the generator with ever new seeds.
func write(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	written := int64(0)
	for seed := uint64(1); written < size && err == nil; seed++ {
		newGenerator(seed, func(m []byte) {
			if err == nil {
				_, err = f.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...))
				written += int64(len(m)) + 4
			}
		}).generate(100_000)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		fmt.Printf("wrote %d bytes to %s; the same command reads them now\n", written, path)
	}
	return err
}

// live feeds the assembler as a gateway does, in virtual time, and prints what it holds after every minute.
func live(minutes int) {
	const perMinute, rounds = 1_000_000, 5
	in := generate(perMinute / rounds)
	a := ingest.NewAssembler(ingest.AssemblerConfig{})
	began, from := time.Now(), cpu()
	now := time.Unix(1_760_000_000, 0)
	fmt.Println("minute  traces   spans  heap MiB  sampled out")
	for minute := range minutes {
		for round := range rounds {
			prefix := fmt.Sprint(minute*rounds+round, "-")
			for _, m := range in.messages {
				var spans []trace.Span
				if err := ingest.DecodeOTLP(m, func(s trace.Span) {
					s.TraceID = prefix + s.TraceID // else the traces of every round were the same
					spans = append(spans, s)
				}); err != nil {
					panic(err) // the messages are our own
				}
				now = now.Add(time.Minute / rounds / time.Duration(len(in.messages)))
				a.Add(now, spans...)
			}
			a.Window(now, 5*time.Minute)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		traces, spans := a.Held()
		fmt.Printf("%6d %7d %7d %9d %12d\n", minute+1, traces, spans, m.HeapAlloc>>20, a.Dropped().Traces)
	}
	fmt.Printf("%d spans in %.1f s, %.2f M spans per CPU-second, peak memory %s; %+v\n",
		minutes*in.spans*rounds, time.Since(began).Seconds(), float64(minutes*in.spans*rounds)/(cpu()-from).Seconds()/1e6, peak(), a.Dropped())
}

// peak is the most memory that the process ever had, as Linux tells it.
func peak() string {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }()
	all, err := io.ReadAll(f)
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(all), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return "unknown"
	}
	kib, err := strconv.Atoi(fields[0])
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", kib>>10)
}
