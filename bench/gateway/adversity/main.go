// Command adversity measures proxies in front of three replicas of which one goes bad, and under twice the load that the
// replicas can bear: an open loop of calls, and what the clients get of it. Every proxy has the best configuration that
// we know of for the purpose (peers/), with the same deadlines for all.
//
// usage: adversity -longpole FILE -bin FOLDER [-peers ...] [-scenarios ...] [-seconds 10] [-page FILE]
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
	"syscall"
	"time"
)

// What holds for every scenario.
const (
	workers  = 4                      // calls that a replica works on at once; more wait there
	service  = 10 * time.Millisecond  // mean time of a call at work
	capacity = 3 * workers * 100      // calls a second that three replicas bear
	deadline = time.Second            // a later answer is worth nothing
	try      = 300 * time.Millisecond // of one attempt, in every configuration
	inflight = 4 * workers            // calls at one replica, where a proxy can be told
)

// scenario is what befalls the replicas.
type scenario struct {
	name, title string
	fault       string // of the third replica
	rate        int    // calls a second
}

var scenarios = []scenario{
	{"healthy", "Nothing is wrong", "", capacity / 2},
	{"slow", "One of three replicas has a slow tail: every fifth call takes 500 ms more", "slow", capacity / 2},
	{"errors", "One of three replicas fails half of its calls, at once", "errors", capacity / 2},
	{"blackhole", "One of three replicas takes calls and never answers, nor its health check", "blackhole", capacity / 2},
	{"overload", "Twice the load that the three can bear", "", capacity * 2},
}

type options struct {
	longpole, bin, page string
	seconds             time.Duration
	warm                time.Duration
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
	flag.StringVar(&peerList, "peers", "longpole,nginx,haproxy,caddy,traefik", "comma-separated")
	flag.StringVar(&scenarioList, "scenarios", "healthy,slow,errors,blackhole,overload", "comma-separated")
	flag.DurationVar(&o.seconds, "for", 10*time.Second, "how long each is measured, from the moment it goes wrong")
	flag.DurationVar(&o.warm, "warm", 3*time.Second, "how long all is well before")
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
	dir, err := os.MkdirTemp("", "longpole-adversity-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // workers of some proxies run as another user
		return err
	}
	var out strings.Builder
	for _, s := range scenarios {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(&out, "\n## %s\n\n%d calls a second, %v, deadline %v.\n\n", s.title, s.rate, o.seconds, deadline)
		out.WriteString("| proxy | goodput | p50 ms | p99 ms | p99.9 ms | refused or failed | late or never | attempts a call |\n|---|---|---|---|---|---|---|---|\n")
		for _, name := range names {
			r, err := one(ctx, o, dir, name, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "adversity: %s, %s: %v\n", s.name, name, err)
				fmt.Fprintf(&out, "| %s | left out: %v | | | | | | |\n", name, err)
				continue
			}
			line := r.row(name)
			fmt.Fprint(os.Stderr, s.name, " ", line)
			for why, n := range r.why {
				fmt.Fprintf(os.Stderr, "  %d x %s\n", n, why)
			}
			out.WriteString(line)
		}
	}
	fmt.Print(out.String())
	if o.page == "" {
		return nil
	}
	return write(o.page, out.String())
}

// one measures one proxy in one scenario, with replicas of its own.
func one(ctx context.Context, o options, dir, name string, s scenario) (report, error) {
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
		Inflight: inflight, AllInflight: 3 * inflight,
	}
	for i := range 3 {
		address := fmt.Sprintf("127.0.0.1:%d", freePort())
		p, err := start(filepath.Join(dir, "replica.log"), self, "replica", "-listen", address, "-seed", fmt.Sprint(i))
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
	load("http://"+front+"/", min(s.rate, capacity/2), o.warm, 1)
	before, err := counts(ctx, c.Replicas)
	if err != nil {
		return report{}, err
	}
	if err := spoil(ctx, c.Replicas[2], s.fault); err != nil {
		return report{}, err
	}
	r := load("http://"+front+"/", s.rate, o.seconds, 2)
	after, err := counts(ctx, c.Replicas)
	r.attempts = after - before
	return r, err
}

// command writes the proxy's configuration and returns its command line.
func (c conf) command(o options, name string) ([]string, error) {
	file := map[string]string{"longpole": "longpole.yaml", "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile", "traefik": "traefik.yml"}[name]
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
		"longpole": {o.longpole, "serve", "--config", path, "--log-level", "error"},
		"nginx":    {"nginx", "-p", c.Dir, "-e", c.Dir + "/nginx.error", "-c", path},
		"haproxy":  {"haproxy", "-db", "-f", path},
		"caddy":    {filepath.Join(o.bin, "caddy"), "run", "--adapter", "caddyfile", "--config", path},
		"traefik":  {filepath.Join(o.bin, "traefik"), "--configFile=" + path},
	}[name]
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
