package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed peers
var peers embed.FS

// subject is a program under test.
type subject struct {
	name, title string
	binary      string                             // "" = not installed
	config      string                             // template in peers
	args        func(c conf, file string) []string // its command line
	ask         []string                           // arguments that print its version
	shared      bool                               // HTTP/2 in the clear on the port of HTTP/1.1
	noTLS       bool
	cannot      map[string]string // suite: why it does not apply
	known       string            // version, once asked
}

// Modes of a subject's configuration.
const (
	plain = "plain" // forward everything
	cache = "cache" // store what may be stored
	grpc  = "grpc"  // HTTP/2 to the upstream
	slow  = "slow"  // forward, with deadlines of slowDeadline
)

// conf fills a template of peers.
type conf struct {
	Mode            string
	H1, H2C, TLS    int
	Upstream        string // host:port
	Dir             string // for its files
	Cert, Key, Both string
	Root            bool
	Deadline        int // seconds, in mode slow
}

// UpstreamHost and UpstreamPort are the parts of Upstream, for templates that name them apart.
func (c conf) UpstreamHost() string { host, _, _ := net.SplitHostPort(c.Upstream); return host }

// UpstreamPort is described at UpstreamHost.
func (c conf) UpstreamPort() string { _, port, _ := net.SplitHostPort(c.Upstream); return port }

func findSubjects(longpole string) []*subject {
	list := []*subject{
		{
			name: "longpole", title: "Longpole", binary: longpole, config: "longpole.yaml", shared: true, ask: []string{"version"},
			args: func(_ conf, file string) []string { return []string{"serve", "--config", file, "--log-level", "warn"} },
		},
		{
			name: "nginx", title: "nginx", config: "nginx.conf", ask: []string{"-v"},
			args: func(c conf, file string) []string {
				return []string{"-p", c.Dir, "-e", c.Dir + "/error.log", "-c", file}
			},
		},
		{
			name: "haproxy", title: "HAProxy", config: "haproxy.cfg", ask: []string{"-v"},
			args: func(_ conf, file string) []string { return []string{"-db", "-f", file} },
		},
		{
			name: "varnish", title: "Varnish", config: "varnish.vcl", ask: []string{"-V"}, shared: true, noTLS: true,
			args:   varnishArgs,
			cannot: map[string]string{"grpc": "forwards no gRPC"},
		},
		{
			name: "caddy", title: "Caddy", config: "Caddyfile", ask: []string{"version"}, shared: true,
			args:   func(_ conf, file string) []string { return []string{"run", "--adapter", "caddyfile", "--config", file} },
			cannot: map[string]string{"cache": "has no cache of its own"},
		},
	}
	programs := map[string]string{"nginx": "nginx", "haproxy": "haproxy", "varnish": "varnishd", "caddy": "caddy"}
	for _, s := range list[1:] {
		s.binary = os.Getenv(strings.ToUpper(s.name)) // a program of one's own, such as CADDY=/opt/caddy
		if s.binary == "" {
			s.binary, _ = exec.LookPath(programs[s.name])
		}
	}
	return list
}

func varnishArgs(c conf, file string) []string {
	args := []string{
		"-F", "-n", filepath.Join(c.Dir, "n"), "-f", file, "-a", fmt.Sprintf("127.0.0.1:%d", c.H1), "-s", "malloc,64m",
		"-p", "feature=+http2", "-p", "thread_pool_min=50",
	}
	if c.Mode == cache { // as the cache tests' own container has it
		args = append(args, "-p", "default_ttl=0", "-p", "default_grace=0", "-p", "default_keep=3600")
	}
	if c.Mode == slow {
		d := strconv.Itoa(c.Deadline)
		args = append(args, "-p", "timeout_idle="+d, "-p", "idle_send_timeout="+d, "-p", "send_timeout="+d)
	}
	return args
}

var versionWord = regexp.MustCompile(`v?\d+\.\d+(\.\d+)?(-\d+-g[0-9a-f]+)?`)

// version asks the program once.
func (s *subject) version() string {
	if s.known == "" && s.binary != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, _ := exec.CommandContext(ctx, s.binary, s.ask...).CombinedOutput()
		if s.known = versionWord.FindString(string(out)); s.known == "" {
			s.known = os.Getenv(strings.ToUpper(s.name) + "_VERSION") // a build that does not know its own
		}
	}
	return s.known
}

// running is a subject at work.
type running struct {
	h1, h2c, tls string // addresses; "" = none
	*process
}

// start runs the subject before the upstream, a host:port. The caller stops it.
func (s *subject) start(ctx context.Context, e *env, mode, upstream string) (*running, error) {
	dir, err := os.MkdirTemp(e.work, s.name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // workers of some run as another user
		return nil, err
	}
	c := conf{
		Mode: mode, H1: freePort(), Upstream: upstream, Dir: dir, Root: os.Geteuid() == 0,
		Cert: e.cert, Key: e.key, Both: e.both, Deadline: slowDeadline,
	}
	c.H2C, c.TLS = c.H1, freePort()
	if !s.shared {
		c.H2C = freePort()
	}
	t, err := template.ParseFS(peers, "peers/"+s.config)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, s.config)
	var text strings.Builder
	if err := t.Execute(&text, c); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		return nil, err
	}
	p, err := startProcess(filepath.Join(dir, "out.log"), append([]string{s.binary}, s.args(c, file)...), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err != nil {
		return nil, err
	}
	r := &running{h1: local(c.H1), h2c: local(c.H2C), process: p}
	ports := []string{r.h1, r.h2c}
	if !s.noTLS {
		r.tls = local(c.TLS)
		ports = append(ports, r.tls)
	}
	for _, address := range ports {
		if err := p.waitFor(ctx, address); err != nil {
			p.stop()
			return nil, fmt.Errorf("%s did not start: %w", s.name, err)
		}
	}
	return r, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort returns a port that nobody listens at now.
func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

var errNoPort = errors.New("nobody listens")
