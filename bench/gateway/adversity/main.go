// Command adversity measures proxies in front of three replicas of which one goes bad, and under twice the load that the
// replicas can bear: an open loop of calls, and what the clients get of it. Every proxy has the best configuration that
// we know of for the purpose (peers/), with the same deadlines for all, replicas of its own and clients of its own; they
// run side by side, so that what else the machine does hits all alike.
//
// usage: adversity -longpole FILE -bin FOLDER [-peers ...] [-scenarios ...] [-for 15s] [-runs 3] [-page FILE]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// What holds for every scenario.
const (
	service  = 10 * time.Millisecond  // mean time of a call at work
	deadline = 250 * time.Millisecond // then a client hangs up
	try      = 100 * time.Millisecond // of one attempt, in every configuration
)

// scenario is what befalls the replicas.
type scenario struct {
	name, title string
	fault       string  // of the third replica
	workers     int     // of a replica: calls that it works on at once; more wait there
	load        float64 // of what three replicas bear
}

var scenarios = []scenario{
	{"healthy", "Nothing is wrong", "", 4, 0.5},
	{"slow", "One of three replicas has a slow tail: every fifth call takes 500 ms more", "slow", 4, 0.5},
	{"errors", "One of three replicas fails half of its calls, at once", "errors", 4, 0.5},
	{"blackhole", "One of three replicas takes calls and never answers, nor its health check", "blackhole", 4, 0.5},
	{"overload", "Twice the load that the three can bear", "", 2, 2},
}

// capacity is how many calls a second three replicas bear.
func (s scenario) capacity() float64 { return float64(3*s.workers) / service.Seconds() }

func (s scenario) overload() bool { return s.load > 1 }

// abreast is how many proxies are measured at once, so that a quarter of the machine stays idle.
func (s scenario) abreast() int {
	if s.overload() {
		return 4
	}
	return 7
}

type options struct {
	longpole, bin, page string
	lasting, warm       time.Duration
	runs, again         int
	busy                float64
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "replica" {
		os.Exit(replica(os.Args[2:]))
	}
	var o options
	var peerList, scenarioList string
	flag.StringVar(&o.longpole, "longpole", "bin/longpole", "the longpole program")
	flag.StringVar(&o.bin, "bin", "", "folder of caddy and traefik")
	flag.StringVar(&o.page, "page", "", "Markdown page between whose marks the tables are written")
	flag.StringVar(&peerList, "peers", "longpole,longpole-adaptive,longpole-defaults,nginx,haproxy,caddy,traefik", "comma-separated")
	flag.StringVar(&scenarioList, "scenarios", "healthy,slow,errors,blackhole,overload", "comma-separated")
	flag.DurationVar(&o.lasting, "for", 15*time.Second, "how long each is measured, from the moment it goes wrong")
	flag.DurationVar(&o.warm, "warm", 3*time.Second, "how long all is well before")
	flag.IntVar(&o.runs, "runs", 3, "of each; the median of each figure counts")
	flag.IntVar(&o.again, "again", 3, "how often at most a run is made again because the machine was busy")
	flag.Float64Var(&o.busy, "busy", 0.95, "share of the CPU that may be in use, all told, for a run to count")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, strings.Split(peerList, ","), strings.Split(scenarioList, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "adversity: error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, names, wanted []string) error {
	var out strings.Builder
	for _, s := range scenarios {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		t, err := measure(ctx, o, names, s)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "\n## %s\n\n%.0f calls a second, %.0f can be borne; %d of %d runs of %v counted; %s.\n\n", s.title, s.load*s.capacity(), s.capacity(), len(t.runs[names[0]]), o.runs, o.lasting, t.machine())
		out.WriteString("| proxy | goodput | of all calls | p50 ms | p99 ms | p99.9 ms | refused or failed | too late | attempts a call |\n|---|---|---|---|---|---|---|---|---|\n")
		for _, name := range names {
			if len(t.runs[name]) == 0 {
				fmt.Fprintf(&out, "| %s | left out: %v | | | | | | | |\n", name, t.why[name])
				continue
			}
			out.WriteString(median(t.runs[name]).row(name))
		}
	}
	fmt.Print(out.String())
	if o.page == "" {
		return nil
	}
	return write(o.page, out.String())
}

// tally is what all runs of a scenario brought.
type tally struct {
	runs   map[string][]figures
	why    map[string]error // a proxy has no runs
	busy   []float64        // share of the machine that was in use, of each batch
	behind time.Duration    // of the generator, at worst
}

// machine says how far the machine can be trusted to have had no part in the figures.
func (t *tally) machine() string {
	return fmt.Sprintf("CPU in use %.0f %% at most, the clients at most %.0f ms behind their schedule", 100*slices.Max(append(t.busy, 0)), float64(t.behind)/1e6)
}

// measure runs a scenario for all proxies, a batch of them at a time. A batch during which the machine was busy with other
// things is not counted and made again, a few times.
func measure(ctx context.Context, o options, names []string, s scenario) (*tally, error) {
	t := &tally{runs: make(map[string][]figures), why: make(map[string]error)}
	for i := range o.runs {
		for batch := range slices.Chunk(names, s.abreast()) {
			for range o.again + 1 {
				if t.batch(ctx, o, batch, s, uint64(i)) {
					break
				}
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return t, nil
}

// batch measures some proxies at once; ok says that it counts.
func (t *tally) batch(ctx context.Context, o options, names []string, s scenario, seed uint64) (ok bool) {
	var wg sync.WaitGroup
	reports, errs := make([]report, len(names)), make([]error, len(names))
	before := readCPU()
	for i, name := range names {
		wg.Go(func() { reports[i], errs[i] = one(ctx, o, name, s, seed) })
	}
	wg.Wait()
	busy, behind := readCPU().since(before), time.Duration(0)
	for _, r := range reports {
		behind = max(behind, r.behind)
	}
	if busy > o.busy || behind > lateBy {
		err := fmt.Errorf("the machine was busy: %.0f %% of the CPU in use, the clients %v late", 100*busy, behind.Round(time.Millisecond))
		fmt.Fprintf(os.Stderr, "adversity: %s: not counted: %v\n", s.name, err)
		for _, name := range names {
			t.why[name] = err
		}
		return false
	}
	t.busy, t.behind = append(t.busy, busy), max(t.behind, behind)
	for i, name := range names {
		t.add(name, s, &reports[i], errs[i])
	}
	return true
}

func (t *tally) add(name string, s scenario, r *report, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "adversity: %s, %s: %v\n", s.name, name, err)
		t.why[name] = err
		return
	}
	f := r.figures(s.overload())
	t.runs[name] = append(t.runs[name], f)
	fmt.Fprint(os.Stderr, s.name, " ", f.row(name))
	for why, n := range r.why {
		fmt.Fprintf(os.Stderr, "  %s: %d x %s\n", name, n, why)
	}
}

// one measures one proxy in one scenario, with replicas of its own.
func one(ctx context.Context, o options, name string, s scenario, seed uint64) (report, error) {
	dir, err := os.MkdirTemp("", "longpole-adversity-")
	if err != nil {
		return report{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // workers of some proxies run as another user
		return report{}, err
	}
	var replicas []*process
	defer func() {
		for _, p := range replicas {
			p.stop()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return report{}, err
	}
	c := conf{
		Port: freePort(), Dir: dir, Root: os.Geteuid() == 0, TryMillis: int(try / time.Millisecond), DeadlineMillis: int(deadline / time.Millisecond),
		TwiceWorkers: 2 * s.workers, Permits: 10 * s.workers, AtOnce: 4 * s.workers, AtOnceInAll: 12 * s.workers,
	}
	for i := range 3 {
		address := fmt.Sprintf("127.0.0.1:%d", freePort())
		p, err := start(filepath.Join(dir, "replica.log"), self, "replica", "-listen", address, "-seed", fmt.Sprint(3*int(seed)+i), "-workers", fmt.Sprint(s.workers))
		if err != nil {
			return report{}, err
		}
		replicas, c.Replicas = append(replicas, p), append(c.Replicas, address)
		if err := p.waitFor(ctx, address); err != nil {
			return report{}, err
		}
	}
	command, err := c.command(o, name)
	if err != nil {
		return report{}, err
	}
	proxy, err := start(filepath.Join(dir, name+".log"), command...)
	if err != nil {
		return report{}, err
	}
	defer proxy.stop()
	front := fmt.Sprintf("127.0.0.1:%d", c.Port)
	if err := proxy.waitFor(ctx, front); err != nil {
		return report{}, err
	}
	time.Sleep(1500 * time.Millisecond) // the first health checks
	load("http://"+front+"/", s.capacity()/2, o.warm, 2*seed)
	before, err := counts(ctx, c.Replicas)
	if err != nil {
		return report{}, err
	}
	if err := spoil(ctx, c.Replicas[2], s.fault); err != nil {
		return report{}, err
	}
	r := load("http://"+front+"/", s.load*s.capacity(), o.lasting, 2*seed+1)
	after, err := counts(ctx, c.Replicas)
	r.attempts = after - before
	return r, err
}

// command writes the proxy's configuration and returns its command line.
func (c conf) command(o options, name string) ([]string, error) {
	longpole, isLongpole := []string{o.longpole, "serve", "--log-level", "error", "--config"}, strings.HasPrefix(name, "longpole")
	file := map[string]string{"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "traefik": "traefik.yml"}[name]
	if isLongpole {
		file = name + ".yaml"
	}
	if file == "" {
		return nil, fmt.Errorf("unknown proxy %q", name)
	}
	path, err := c.render(file)
	if err != nil {
		return nil, err
	}
	if name == "traefik" {
		if _, err := c.render("traefik-routes.yml"); err != nil {
			return nil, err
		}
	}
	command := map[string][]string{
		"nginx":   {"nginx", "-p", c.Dir, "-e", c.Dir + "/nginx.error", "-c", path},
		"haproxy": {"haproxy", "-db", "-f", path},
		"caddy":   {filepath.Join(o.bin, "caddy"), "run", "--adapter", "caddyfile", "--config", path},
		"traefik": {filepath.Join(o.bin, "traefik"), "--configFile=" + path},
	}[name]
	if isLongpole {
		command = append(longpole, path)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, fmt.Errorf("%s is not there", name)
	}
	return command, nil
}

const (
	beginMark = "<!-- results: written by make bench-adversity -->"
	endMark   = "<!-- end of results -->"
)

// write replaces what stands between the marks of the page.
func write(page, tables string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(old), beginMark)
	_, tail, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: no marks to write the results between", page)
	}
	return os.WriteFile(page, []byte(head+beginMark+"\n"+tables+"\n"+endMark+tail), 0o644)
}
