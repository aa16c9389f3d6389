package slo

import (
	"net/url"
	"time"

	"github.com/longpole/longpole/setting"
)

// Webhook is where alerts are sent. URL is mandatory; in a file it alone may stand for all of it.
type Webhook struct {
	URL      string            `yaml:"url"`      // http or https; the body is that of an Alertmanager webhook
	Headers  map[string]string `yaml:"headers"`  // sent with it, as Authorization: up to 16
	Timeout  time.Duration     `yaml:"timeout"`  // of one attempt; 100ms..1m; default 10s
	Attempts int               `yaml:"attempts"` // for one alert, 1 s, 2 s, 4 s ... up to 1 m apart; 1..20; default 6
	Queue    int               `yaml:"queue"`    // alerts that wait; further ones are dropped and counted; 1..10000; default 256
}

// UnmarshalText reads a URL alone.
func (c *Webhook) UnmarshalText(text []byte) error {
	*c = Webhook{URL: string(text)}
	return nil
}

// WithDefaults fills what is zero.
func (c Webhook) WithDefaults() Webhook {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Attempts == 0 {
		c.Attempts = 6
	}
	if c.Queue == 0 {
		c.Queue = 256
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error. Fields that are zero stand for their defaults.
func (c Webhook) Validate() error {
	var f setting.Faults
	u, err := url.Parse(c.URL)
	f.Check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", "url", "this address", "http://... or https://...")
	f.Check(len(c.Headers) <= 16, "headers", len(c.Headers), "at most 16")
	c = c.WithDefaults()
	f.Check(c.Timeout >= 100*time.Millisecond && c.Timeout <= time.Minute, "timeout", c.Timeout, "100ms..1m")
	f.Check(c.Attempts >= 1 && c.Attempts <= 20, "attempts", c.Attempts, "1..20")
	f.Check(c.Queue >= 1 && c.Queue <= 10_000, "queue", c.Queue, "1..10000")
	return f.Err()
}
