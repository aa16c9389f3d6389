package probe

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
)

// ErrPrometheus is wrapped by the errors of what a Prometheus server answered.
var ErrPrometheus = errors.New("probe: Prometheus")

// PrometheusConfig is a server of Prometheus' HTTP API: Prometheus, or Mimir, Thanos, VictoriaMetrics. URL is mandatory; the rest has
// the defaults given at each field.
type PrometheusConfig struct {
	URL          string            `yaml:"url"`            // http://host:port, with the prefix that it is served under
	Username     string            `yaml:"username"`       // of basic authentication; default that in the URL, or none
	PasswordFile string            `yaml:"password_file"`  // that holds the user's password, read anew each time; default none
	PasswordEnv  string            `yaml:"password_env"`   // environment variable that holds it; default LONGPOLE_PROMETHEUS_PASSWORD
	TokenFile    string            `yaml:"token_file"`     // that holds the bearer token for a server without users, read anew each time; default none
	TokenEnv     string            `yaml:"token_env"`      // environment variable that holds it; default LONGPOLE_PROMETHEUS_TOKEN
	Headers      map[string]string `yaml:"headers"`        // sent along, such as X-Scope-OrgID; up to 8
	Match        map[string]string `yaml:"match"`          // labels that every series must have, those of one cluster on a server of many; up to 8
	Service      string            `yaml:"service_label"`  // that names the service; default the first of service_name, exported_job, job, service, app
	Instance     string            `yaml:"instance_label"` // that names the process; default the first of service_instance_id, pod, exported_instance, instance
	Services     map[string]string `yaml:"services"`       // what the label says, to the service's name in the traces, where the two differ; up to 256
	Series       int               `yaml:"series"`         // read at most in one answer; 100..100000; default 20000
	Timeout      time.Duration     `yaml:"timeout"`        // of all queries of one look; 100ms..5m; default 30s
	MaxSize      int64             `yaml:"max_bytes"`      // of an answer; 64KiB..256MiB; default 32MiB
	Budget       Budget            `yaml:"budget"`         // of its looks; default per_hour 5m
}

// WithDefaults fills what is zero.
func (c PrometheusConfig) WithDefaults() PrometheusConfig {
	setDefault(&c.PasswordEnv, "LONGPOLE_PROMETHEUS_PASSWORD")
	setDefault(&c.TokenEnv, "LONGPOLE_PROMETHEUS_TOKEN")
	setDefault(&c.Series, 20_000)
	setDefault(&c.Timeout, 30*time.Second)
	setDefault(&c.MaxSize, 32<<20)
	setDefault(&c.Budget.PerHour, 5*time.Minute)
	c.Budget = c.Budget.WithDefaults()
	return c
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c PrometheusConfig) Validate() error {
	var f setting.Faults
	checkURL(&f, c.URL)
	f.Check(c.Username == "" || c.TokenFile == "", "token_file", c.TokenFile, "either a user or a token")
	f.Check(len(c.Headers) <= 8, "headers", len(c.Headers), "up to 8")
	f.Check(len(c.Match) <= 8, "match", len(c.Match), "up to 8 labels")
	f.Check(len(c.Services) <= 256, "services", len(c.Services), "up to 256")
	for label := range c.Match {
		f.Check(labelName.MatchString(label), "match", label, "the name of a label")
	}
	f.Check(c.Service == "" || labelName.MatchString(c.Service), "service_label", c.Service, "the name of a label")
	f.Check(c.Instance == "" || labelName.MatchString(c.Instance), "instance_label", c.Instance, "the name of a label")
	within(&f, "series", c.Series, 100, 100_000, "100..100000")
	within(&f, "timeout", c.Timeout, 100*time.Millisecond, 5*time.Minute, "100ms..5m")
	within(&f, "max_bytes", c.MaxSize, 64<<10, 256<<20, "64KiB..256MiB")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

func (c PrometheusConfig) naming() evidence.SeriesNaming {
	n := evidence.SeriesNaming{Rename: c.Services}
	if c.Service != "" {
		n.Service = []string{c.Service}
	}
	if c.Instance != "" {
		n.Instance = []string{c.Instance}
	}
	return n.WithDefaults()
}

// Prometheus reads from a server what it recorded of services over a window of time. Safe for concurrent use.
type Prometheus struct {
	cfg    PrometheusConfig
	client *http.Client
	guard  *guard
	least  time.Duration // of a window
}

// NewPrometheus makes a collector that asks with client.
func NewPrometheus(c PrometheusConfig, client *http.Client) (*Prometheus, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Prometheus{cfg: c, client: client, guard: newGuard(c.Budget), least: leastWindow}, nil
}

// Spent is what the collector has done.
func (p *Prometheus) Spent() Spent { return p.guard.report(time.Now()) }

// The shape of what is asked.
const (
	rangeSteps   = 10              // within a window, at which gauges are looked at
	leastWindow  = 2 * time.Minute // a scrape every minute gives two samples within it
	mostServices = 100             // that a query names; with more it names none
	mostPods     = 200
)

// Over reads what the server recorded from from to to of those services, or of all when there is none: CPU, garbage collection,
// throttling and pools of their processes, calls of their routes, and the backlog of queues. A window below two minutes is
// read as two minutes that end with it, since a scrape once a minute shows nothing in less. A query that fails is a Gap, unless
// all do.
func (p *Prometheus) Over(ctx context.Context, from, to time.Time, services []string) (evidence.Facts, error) {
	if to.Sub(from) < p.least {
		from = to.Add(-p.least)
	}
	l := prometheusLook{Prometheus: p, from: from, to: to, naming: p.cfg.naming(), routes: map[[2]string]bool{}}
	l.facts = evidence.Facts{From: from, To: to}
	if len(services) <= mostServices {
		l.services = l.asLabelled(services)
	}
	err := p.guard.look(ctx, "prometheus", p.cfg.Timeout, l.read)
	if err == nil || l.answered > 1 {
		l.facts.Bound()
		return l.facts, nil
	}
	return evidence.Facts{}, err
}

// prometheusLook is one look.
type prometheusLook struct {
	*Prometheus
	from, to time.Time
	naming   evidence.SeriesNaming
	services []string // as the labels have them; none = all
	facts    evidence.Facts
	routes   map[[2]string]bool // service and route, of facts
	answered int                // queries
	last     error
}

// asLabelled is how the labels call services.
func (l *prometheusLook) asLabelled(services []string) []string {
	var out []string
	for _, s := range services {
		out = append(out, s)
		for label, name := range l.naming.Rename {
			if name == s {
				out = append(out, label)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (l *prometheusLook) read(ctx context.Context) error {
	families := evidence.ServedFamilies()
	var names []string
	for _, f := range families {
		names = append(names, f.Name, f.Name+"_bucket")
	}
	// Names that the server does not have are not asked for again; and a server that does not answer this answers nothing.
	known, err := l.known(ctx, slices.Concat(names, evidence.ProcessMetrics(), evidence.ContainerMetrics(), evidence.BacklogMetrics()))
	if err != nil {
		return err
	}
	processes := l.processes(ctx, known)
	l.facts.Services = evidence.Processes(processes, l.naming)
	for _, f := range families {
		for _, name := range []string{f.Name + "_bucket", f.Name} {
			if known[name] {
				l.served(ctx, f, name)
			}
		}
	}
	if have := only(known, evidence.BacklogMetrics()); len(have) > 0 {
		l.facts.Queues = evidence.Backlogs(l.ranged(ctx, "queues", l.selector(have, "")), l.to.Sub(l.from))
	}
	if l.answered == 1 || overload(l.last) {
		return l.last
	}
	return nil
}

// known asks which of names the server has.
func (l *prometheusLook) known(ctx context.Context, names []string) (map[string]bool, error) {
	list, err := l.query(ctx, "query", url.Values{"query": {"count by (__name__) (" + l.selector(names, "") + ")"}, "time": {stamp(l.to)}})
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, s := range list {
		out[s.Name()] = true
	}
	return out, nil
}

func only(known map[string]bool, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !known[n] })
}

// processes reads what is known of processes, and of the containers of their pods.
func (l *prometheusLook) processes(ctx context.Context, known map[string]bool) []evidence.Series {
	have := only(known, evidence.ProcessMetrics())
	if len(have) == 0 {
		l.gap("processes", "the server has none of the metrics of Go, the JVM, or pools that docs/evidence/prometheus.md lists")
	}
	var list []evidence.Series
	if len(have) > 0 {
		list = l.ranged(ctx, "processes", l.each(have))
	}
	have = only(known, evidence.ContainerMetrics())
	if len(have) == 0 {
		l.gap("throttling", "the server has no container_cpu_cfs_throttled_periods_total")
		return list
	}
	var pods []string
	for _, s := range list {
		if pod := s.Labels["pod"]; pod != "" {
			pods = append(pods, pod)
		}
	}
	slices.Sort(pods)
	pods = slices.Compact(pods)
	query := l.selector(have, "")
	switch {
	case len(pods) > 0 && len(pods) <= mostPods:
		query = l.selector(have, matcher("pod", pods))
	case len(l.services) > 0:
		query = l.selector(have, matcher("container", l.services))
	}
	return append(list, l.ranged(ctx, "containers", query)...)
}

// served reads the calls of one family.
func (l *prometheusLook) served(ctx context.Context, f evidence.ServedFamily, name string) {
	window := l.to.Sub(l.from)
	by := slices.Concat(l.naming.Service, f.Labels())
	if name != f.Name {
		by = append(by, "le")
	}
	over := "[" + strconv.Itoa(int(window.Seconds())) + "s]"
	var parts []string
	for _, s := range l.selectors([]string{name}) {
		parts = append(parts, "increase("+s+over+")")
	}
	query := "sum by (" + strings.Join(by, ", ") + ") (" + strings.Join(parts, " or ") + ")"
	list, err := l.query(ctx, "query", url.Values{"query": {query}, "time": {stamp(l.to)}})
	if err != nil {
		l.gap(f.Name, err.Error())
		return
	}
	for _, r := range evidence.Served(list, f, l.naming, window, query) {
		if key := [2]string{r.Service, r.Route}; !l.routes[key] {
			l.routes[key] = true
			l.facts.Routes = append(l.facts.Routes, r)
		}
	}
}

// each asks for the series of the services, by whatever label they are named.
func (l *prometheusLook) each(names []string) string {
	return strings.Join(l.selectors(names), " or ")
}

func (l *prometheusLook) selectors(names []string) []string {
	if len(l.services) == 0 {
		return []string{l.selector(names, "")}
	}
	var out []string
	for _, label := range l.naming.Service {
		want := matcher(label, l.services)
		if strings.HasSuffix(label, "job") { // which may have a namespace in front
			want = label + `=~` + strconv.Quote("(.*/)?("+alternatives(l.services)+")")
		}
		out = append(out, l.selector(names, want))
	}
	return out
}

// selector is the series of those names that every series must match, and want beside that; "" = nothing.
func (l *prometheusLook) selector(names []string, want string) string {
	parts := []string{matcher("__name__", names)}
	for _, label := range slices.Sorted(keysOf(l.cfg.Match)) {
		parts = append(parts, label+"="+strconv.Quote(l.cfg.Match[label]))
	}
	if want != "" {
		parts = append(parts, want)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func matcher(label string, values []string) string {
	if len(values) == 1 {
		return label + "=" + strconv.Quote(values[0])
	}
	return label + "=~" + strconv.Quote(alternatives(values))
}

func alternatives(values []string) string {
	var out []string
	for _, v := range values {
		out = append(out, regexp.QuoteMeta(v))
	}
	return strings.Join(out, "|")
}

// ranged reads series over the window; what fails is a gap.
func (l *prometheusLook) ranged(ctx context.Context, what, query string) []evidence.Series {
	step := max(l.to.Sub(l.from)/rangeSteps, time.Second)
	list, err := l.query(ctx, "query_range", url.Values{"query": {query}, "start": {stamp(l.from)}, "end": {stamp(l.to)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', 3, 64)}})
	if err != nil {
		l.gap(what, err.Error())
	}
	return list
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func (l *prometheusLook) gap(what, why string) {
	g := evidence.Gap{What: what + " in Prometheus", Why: why}
	if !slices.Contains(l.facts.Gaps, g) && len(l.facts.Gaps) < 32 {
		l.facts.Gaps = append(l.facts.Gaps, g)
	}
}

// query sends one query and reads its answer.
func (l *prometheusLook) query(ctx context.Context, path string, form url.Values) (list []evidence.Series, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrPrometheus, err)
			l.last = err
		} else {
			l.answered++
		}
	}()
	form.Set("timeout", strconv.FormatFloat(l.cfg.Timeout.Seconds(), 'f', 3, 64))
	data, err := l.send(ctx, http.MethodPost, path, form)
	if errors.Is(err, errMethod) { // a proxy that lets only reads through
		data, err = l.send(ctx, http.MethodGet, path, form)
	}
	if err != nil {
		return nil, err
	}
	a, err := evidence.ParseSeries(data, l.cfg.Series)
	if err != nil {
		return nil, err
	}
	for _, w := range a.Warnings {
		l.gap("a part", w)
	}
	if a.Cut > 0 {
		l.gap("some series", fmt.Sprintf("%d more than %d came; narrow them by match, or raise series", a.Cut, l.cfg.Series))
	}
	return a.Series, nil
}

var errMethod = errors.New("POST is not allowed")

// send sends a query by one method and returns what came, an error of the API as its text.
func (p *Prometheus) send(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
	at := strings.TrimSuffix(p.cfg.URL, "/") + "/api/v1/" + path
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else {
		at += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if err := p.authorise(req); err != nil {
		return nil, err
	}
	data, status, err := answer(p.client, req, p.cfg.MaxSize)
	switch {
	case err != nil && (status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented) && method == http.MethodPost:
		return nil, errMethod
	case err != nil && !overload(err): // the API says more than the status
		_, said := evidence.ParseSeries(data, 1)
		if _, ok := errors.AsType[*evidence.SeriesError](said); ok {
			return nil, said
		}
	}
	return data, err
}

// authorise says who asks.
func (p *Prometheus) authorise(req *http.Request) error {
	req.Header.Set("User-Agent", "longpole-probe")
	for name, value := range p.cfg.Headers {
		req.Header.Set(name, value)
	}
	user := req.URL.User
	password, told := user.Password()
	if name := cmp.Or(p.cfg.Username, user.Username()); name != "" {
		if !told {
			var err error
			if password, err = secret(p.cfg.PasswordEnv, p.cfg.PasswordFile); err != nil {
				return err
			}
		}
		req.SetBasicAuth(name, password)
		return nil
	}
	token, err := secret(p.cfg.TokenEnv, p.cfg.TokenFile)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return err
}

// secret is what the file holds, or without one the environment variable.
func secret(variable, file string) (string, error) {
	if file == "" {
		return os.Getenv(variable), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(data)), nil
}

// prometheusSource is one server, asked at the end of each window.
type prometheusSource struct {
	reader   *Prometheus
	services func() []string
}

func (s *prometheusSource) spent() Spent { return s.reader.Spent() }
func (s *prometheusSource) close()       {}

func (s *prometheusSource) collect(ctx context.Context, window time.Duration, _ func() []Query) (func(*evidence.Facts), error) {
	from := time.Now()
	if !pause(ctx, window) {
		return nil, ctx.Err()
	}
	facts, err := s.reader.Over(ctx, from, from.Add(window), s.services())
	if err != nil {
		return nil, err
	}
	return func(f *evidence.Facts) {
		began, ended := f.From, f.To
		f.Add(facts)
		f.From, f.To = began, ended
	}, nil
}
