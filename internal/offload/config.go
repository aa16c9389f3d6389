package offload

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// StoreConfig is where jobs are kept. The zero value is a store in the folder longpole-jobs of the working directory.
type StoreConfig struct {
	Dir          string        `yaml:"dir"`           // folder of the embedded server, made if it is missing; of one process at a time; default longpole-jobs
	SyncInterval time.Duration `yaml:"sync_interval"` // of fsync; 0 = before each acknowledgement; longer: a power cut may take what came within it, the end of a process does not
	URL          string        `yaml:"url"`           // of a NATS server with JetStream instead of the embedded one; several with commas; nats:// or tls://; "" = embedded
	Credentials  string        `yaml:"credentials"`   // file of NATS credentials for URL; "" = none
	CA           string        `yaml:"ca"`            // PEM file of who may sign the certificate of URL; "" = those of the system
	Replicas     int           `yaml:"replicas"`      // of each stream at URL; 1..5; default 1
	Prefix       string        `yaml:"prefix"`        // of the names of streams and subjects, so that several fleets can share a server; default longpole
	Timeout      time.Duration `yaml:"timeout"`       // of one operation of the store; default 5s
}

// WithDefaults fills what is zero.
func (c StoreConfig) WithDefaults() StoreConfig {
	if c.URL == "" {
		setDefault(&c.Dir, "longpole-jobs")
	}
	setDefault(&c.Replicas, 1)
	setDefault(&c.Prefix, "longpole")
	setDefault(&c.Timeout, 5*time.Second)
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c StoreConfig) Validate() error {
	var f setting.Faults
	f.Check(c.URL == "" || c.Dir == "", "dir", c.Dir, "no folder where a url is given")
	f.Check(c.SyncInterval >= 0, "sync_interval", c.SyncInterval, "a duration that is not negative")
	f.Check(c.URL == "" || c.SyncInterval == 0, "sync_interval", c.SyncInterval, "none where a url is given: that server has its own")
	for one := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		ok := err == nil && u.Host != "" && slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme)
		f.Check(c.URL == "" || ok, "url", one, "nats://host:port or tls://host:port")
	}
	f.Check(c.URL != "" || c.Credentials == "", "credentials", c.Credentials, "a url to use them at")
	f.Check(c.URL != "" || c.CA == "", "ca", c.CA, "a url to use it at")
	f.Check(c.Replicas >= 0 && c.Replicas <= 5, "replicas", c.Replicas, "1..5")
	f.Check(c.URL != "" || c.Replicas <= 1, "replicas", c.Replicas, "1 where no url is given: the embedded server is alone")
	f.Check(len(c.Prefix) <= 32 && plain(c.Prefix) == c.Prefix, "prefix", c.Prefix, "up to 32 letters, digits and - characters")
	f.Check(c.Timeout >= 0, "timeout", c.Timeout, "a duration that is not negative")
	return f.Err()
}

// OnError is what becomes of a call whose job could not be stored.
type OnError string

// The choices.
const (
	Refuse  OnError = "refuse"  // 503 and Retry-After: what was not stored is not promised
	Forward OnError = "forward" // the call is made at once, and its answer is the client's
)

// QueueConfig is how the calls of one route are put off. The zero value means the defaults given at each field.
type QueueConfig struct {
	Concurrency   int           `yaml:"concurrency"`    // deliveries at once, in each gateway; 1..4096; default 16
	MaxAttempts   int           `yaml:"max_attempts"`   // deliveries that fail before a job is a dead letter, the retries of the route's policy within one not counted; 1..1000; default 10
	BaseDelay     time.Duration `yaml:"base_delay"`     // ceiling of the first pause, doubled with each; a pause is drawn from the upper half below its ceiling; default 1s
	MaxDelay      time.Duration `yaml:"max_delay"`      // ceiling of every pause; default 5m, or base_delay if that is longer
	MaxAge        time.Duration `yaml:"max_age"`        // of a job, after which it is a dead letter; default 24h
	BodyBytes     int64         `yaml:"body_bytes"`     // of one request body, more is refused with 413; 1B..32MiB; default 1MiB
	Jobs          int           `yaml:"jobs"`           // that may wait; default 100000
	Bytes         int64         `yaml:"bytes"`          // that they may need; default 1GiB
	Dedupe        time.Duration `yaml:"dedupe"`         // how long after its acceptance a job is told from a new one with the same Idempotency-Key, even when it is done; up to 24h; default 10m
	StripHeaders  []string      `yaml:"strip_headers"`  // request fields that are not stored and not delivered; one or several; default none
	OnError       OnError       `yaml:"on_error"`       // refuse or forward, when the job cannot be stored; default refuse
	OnlyPreferred bool          `yaml:"only_preferred"` // true = only calls that say "Prefer: respond-async" (RFC 7240) are put off
	DeadJobs      int           `yaml:"dead_jobs"`      // dead letters that are kept; default 10000
	DeadFor       time.Duration `yaml:"dead_for"`       // how long they are kept; default 720h
	HideStatus    bool          `yaml:"hide_status"`    // true = clients are told the ID only, and cannot ask where a job stands
}

// WithDefaults fills what is zero.
func (c QueueConfig) WithDefaults() QueueConfig {
	setDefault(&c.Concurrency, 16)
	setDefault(&c.MaxAttempts, 10)
	setDefault(&c.BaseDelay, time.Second)
	setDefault(&c.MaxDelay, max(5*time.Minute, c.BaseDelay))
	setDefault(&c.MaxAge, 24*time.Hour)
	setDefault(&c.BodyBytes, 1<<20)
	setDefault(&c.Jobs, 100_000)
	setDefault(&c.Bytes, 1<<30)
	setDefault(&c.Dedupe, 10*time.Minute)
	setDefault(&c.OnError, Refuse)
	setDefault(&c.DeadJobs, 10_000)
	setDefault(&c.DeadFor, 30*24*time.Hour)
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c QueueConfig) Validate() error {
	var f setting.Faults
	f.Check(c.Concurrency >= 0 && c.Concurrency <= 4096, "concurrency", c.Concurrency, "1..4096")
	f.Check(c.MaxAttempts >= 0 && c.MaxAttempts <= 1000, "max_attempts", c.MaxAttempts, "1..1000")
	f.Check(c.BaseDelay >= 0, "base_delay", c.BaseDelay, "a duration that is not negative")
	f.Check(c.MaxDelay == 0 || c.MaxDelay >= c.BaseDelay, "max_delay", c.MaxDelay, "at least base_delay")
	f.Check(c.MaxAge >= 0, "max_age", c.MaxAge, "a duration that is not negative")
	f.Check(c.BodyBytes >= 0 && c.BodyBytes <= maxBody, "body_bytes", c.BodyBytes, "1B..32MiB")
	f.Check(c.Jobs >= 0 && c.Jobs <= 10_000_000, "jobs", c.Jobs, "1..10000000")
	f.Check(c.Bytes == 0 || c.Bytes >= 1<<20, "bytes", c.Bytes, "at least 1MiB")
	f.Check(c.Dedupe == 0 || c.Dedupe >= 100*time.Millisecond && c.Dedupe <= 24*time.Hour, "dedupe", c.Dedupe, "100ms..24h")
	for _, name := range c.StripHeaders {
		f.Check(name != "" && plain(name) == name, "strip_headers", name, "the name of a header field")
	}
	f.Check(c.OnError == "" || c.OnError == Refuse || c.OnError == Forward, "on_error", string(c.OnError), "refuse or forward")
	f.Check(c.DeadJobs >= 0 && c.DeadJobs <= 10_000_000, "dead_jobs", c.DeadJobs, "1..10000000")
	f.Check(c.DeadFor == 0 || c.DeadFor >= time.Minute, "dead_for", c.DeadFor, "at least 1m")
	return f.Err()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// plain is s as it can be part of a stream's name.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, s)
}
