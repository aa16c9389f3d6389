package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/setting"
)

// ErrProfile is wrapped by the errors of what was fetched or parsed as a profile.
var ErrProfile = errors.New("probe: no profile")

// The bounds of a profile.
const (
	maxStacks = 50_000
	maxFrames = 512
)

// ProfilesConfig is where a process shows its profiles. URL is mandatory; the rest has the defaults given at each field.
type ProfilesConfig struct {
	Service  string        `yaml:"service"`   // name in the traces
	Instance string        `yaml:"instance"`  // its host, pod or instance ID in the traces; default not told
	URL      string        `yaml:"url"`       // of net/http/pprof: http://host:port/debug/pprof
	Kinds    []string      `yaml:"kinds"`     // cpu, heap, allocs, mutex, block, goroutine; default cpu, mutex, block
	Healthy  string        `yaml:"healthy"`   // file of a CPU profile of healthy times to compare with; default none
	Seconds  int           `yaml:"seconds"`   // of a CPU profile; 1..60; default 10
	Timeout  time.Duration `yaml:"timeout"`   // of a fetch, beyond Seconds; 100ms..1m; default 10s
	MaxSize  int64         `yaml:"max_bytes"` // of a profile as sent, and of sixteen times as much unpacked; 64KiB..64MiB; default 8MiB
	Budget   Budget        `yaml:"budget"`    // per_hour counts the seconds of CPU profiles; default min_interval 1m, per_hour 5m
}

// WithDefaults fills what is zero.
func (c ProfilesConfig) WithDefaults() ProfilesConfig {
	if len(c.Kinds) == 0 {
		c.Kinds = []string{"cpu", "mutex", "block"}
	}
	setDefault(&c.Seconds, 10)
	setDefault(&c.Timeout, 10*time.Second)
	setDefault(&c.MaxSize, 8<<20)
	setDefault(&c.Budget.MinInterval, time.Minute)
	setDefault(&c.Budget.PerHour, 5*time.Minute)
	c.Budget = c.Budget.WithDefaults()
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c ProfilesConfig) Validate() error {
	var f setting.Faults
	checkURL(&f, c.URL)
	for i, k := range c.Kinds {
		_, ok := kinds[k]
		f.Check(ok, fmt.Sprintf("kinds[%d]", i), k, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	within(&f, "seconds", c.Seconds, 1, 60, "1..60")
	within(&f, "timeout", c.Timeout, 100*time.Millisecond, time.Minute, "100ms..1m")
	within(&f, "max_bytes", c.MaxSize, 64<<10, 64<<20, "64KiB..64MiB")
	f.Within("budget", c.Budget.Validate())
	return f.Err()
}

func checkURL(f *setting.Faults, s string) {
	u, err := url.Parse(s)
	f.Check(err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"), "url", plainURL(s), "http://host:port/path")
}

// Profiles fetches profiles of one process. Safe for concurrent use; one fetch of a kind at a time within the budget.
type Profiles struct {
	cfg    ProfilesConfig
	client *http.Client
	guard  *guard
}

// NewProfiles makes a collector that fetches with client, whose own timeout, if any, must be longer than a CPU profile. Redirects are
// the client's matter.
func NewProfiles(c ProfilesConfig, client *http.Client) (*Profiles, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return &Profiles{cfg: c, client: client, guard: newGuard(c.Budget)}, nil
}

// Spent is what the collector has done.
func (p *Profiles) Spent() Spent { return p.guard.report(time.Now()) }

// kinds are the profiles of net/http/pprof that are read, and which of their figures.
var kinds = map[string]struct{ path, value, count string }{
	"cpu":       {"profile", "cpu", "samples"},
	"heap":      {"heap", "inuse_space", "inuse_objects"},
	"allocs":    {"allocs", "alloc_space", "alloc_objects"},
	"mutex":     {"mutex", "delay", "contentions"},
	"block":     {"block", "delay", "contentions"},
	"goroutine": {"goroutine", "goroutine", "goroutine"},
}

// Fetch takes a profile of a kind: cpu (which takes Seconds), heap, allocs, mutex, block, goroutine. Mutex, block, heap and allocs are
// those since the process began, unless rates were set; a mutex or block profile is empty when its rate is 0, which a Gap says.
// Errors wrap ErrProfile, or are those of the budget.
func (p *Profiles) Fetch(ctx context.Context, kind string) (out evidence.Profile, err error) {
	k, ok := kinds[kind]
	if !ok {
		return out, fmt.Errorf("%w: kind %q, want one of %s", ErrProfile, kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	at, timeout := strings.TrimRight(p.cfg.URL, "/")+"/"+k.path, p.cfg.Timeout
	if kind == "cpu" {
		at += "?seconds=" + strconv.Itoa(p.cfg.Seconds)
		timeout += time.Duration(p.cfg.Seconds) * time.Second
	}
	err = p.guard.look(ctx, kind, timeout, func(ctx context.Context) error {
		from := time.Now()
		data, err := get(ctx, p.client, at, p.cfg.MaxSize)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProfile, err)
		}
		out, err = ParseProfile(data, kind, p.cfg.Service, p.cfg.MaxSize)
		if err == nil && kind != "cpu" {
			out.From, out.To = from, from
		}
		return err
	})
	return out, err
}

// get reads at most limit bytes; more is an error.
func get(ctx context.Context, client *http.Client, at string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "longpole-probe")
	data, _, err := answer(client, req, limit)
	return data, err
}

// answer sends req and reads at most limit bytes of what comes; more is an error, and so is a status other than 200.
func answer(client *http.Client, req *http.Request, limit int64) (data []byte, status int, err error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	data, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
	case res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusTooManyRequests:
		err = fmt.Errorf("%w: %s", errOverload, res.Status)
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: %.200q", res.Status, bytes.TrimSpace(data[:min(len(data), 200)]))
	case int64(len(data)) > limit:
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return data, res.StatusCode, err
}

// ParseProfile reads a profile as pprof writes it, gzipped or not, and takes from it the figures of a kind as Fetch has them. limit bounds
// data, and sixteen times it what data unpack to. Bounds: 50,000 distinct stacks, of which the rest is Dropped, and 512 frames, of
// which the innermost stay. Errors wrap ErrProfile.
func ParseProfile(data []byte, kind, service string, limit int64) (out evidence.Profile, err error) {
	k, ok := kinds[kind]
	if !ok || int64(len(data)) > limit {
		return out, fmt.Errorf("%w: kind %q with %d bytes", ErrProfile, kind, len(data))
	}
	if data, err = gunzip(data, 16*limit); err != nil {
		return out, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	p, err := profile.ParseUncompressed(data)
	if err == nil {
		err = p.CheckValid()
	}
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrProfile, err)
	}
	value, count := -1, -1
	for i, t := range p.SampleType {
		if t.Type == k.value {
			value = i
			out.Unit = t.Unit
		}
		if t.Type == k.count {
			count = i
		}
	}
	if value < 0 {
		return out, fmt.Errorf("%w: no %s in it", ErrProfile, k.value)
	}
	out.Kind, out.Service = kind, service
	out.From = time.Unix(0, p.TimeNanos)
	out.To, out.Since = out.From.Add(time.Duration(p.DurationNanos)), time.Duration(p.DurationNanos)
	merge(&out, p, value, count)
	out.Gaps = profileGaps(kind, len(p.Sample))
	return out, nil
}

func profileGaps(kind string, samples int) []evidence.Gap {
	var gaps []evidence.Gap
	if kind == "cpu" {
		gaps = append(gaps, evidence.Gap{What: "waiting", Why: "a CPU profile shows what ran, not what waited for a lock, the network or a disk"})
	}
	if samples == 0 && (kind == "mutex" || kind == "block") {
		gaps = append(gaps, evidence.Gap{What: kind, Why: "empty: the process has not set its rate (runtime.SetMutexProfileFraction, SetBlockProfileRate), or nothing waited"})
	}
	return gaps
}

// merge adds up the samples of one stack; labels are left out.
func merge(out *evidence.Profile, p *profile.Profile, value, count int) {
	byStack := map[string]int{}
	var key strings.Builder
	for _, s := range p.Sample {
		frames := stack(s)
		key.Reset()
		for _, f := range frames {
			key.WriteString(f)
			key.WriteByte(0)
		}
		i, known := byStack[key.String()]
		if !known {
			if len(out.Stacks) >= maxStacks {
				out.Dropped++
				continue
			}
			i = len(out.Stacks)
			byStack[key.String()] = i
			out.Stacks = append(out.Stacks, evidence.Stack{Frames: frames})
		}
		out.Stacks[i].Value += float64(max(s.Value[value], 0))
		if count >= 0 {
			out.Stacks[i].Count += float64(max(s.Value[count], 0))
		}
	}
}

// stack is that of s, outermost first, by function names; a place without a name is that of its binary.
func stack(s *profile.Sample) []string {
	var frames []string
	for _, loc := range s.Location { // innermost first
		if len(loc.Line) == 0 {
			where := "?"
			if loc.Mapping != nil && loc.Mapping.File != "" {
				where = path.Base(loc.Mapping.File)
			}
			frames = append(frames, "["+where+"]")
		}
		for _, line := range loc.Line {
			name := "?"
			if line.Function != nil && line.Function.Name != "" {
				name = line.Function.Name
			}
			frames = append(frames, name)
		}
		if len(frames) >= maxFrames {
			frames = append(frames[:maxFrames], "…")
			break
		}
	}
	slices.Reverse(frames)
	return frames
}
