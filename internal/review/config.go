package review

import (
	"net/url"
	"time"

	"github.com/longpole/longpole/setting"
)

// Config says when to review, and who is told. The zero value reviews every week and tells nobody.
type Config struct {
	Every        time.Duration `yaml:"every"`         // between two reviews; 1m..8760h; default 168h
	Webhook      string        `yaml:"webhook"`       // http or https address that is told of each review and, at once, of a change that is now harmful; "" = none
	Folder       string        `yaml:"folder"`        // where each review is written as Markdown, HTML and JSON; "" = nowhere
	AutoRollback bool          `yaml:"auto_rollback"` // true = a change that is now harmful is undone
	Window       time.Duration `yaml:"window"`        // of evidence that a standing is drawn from; 1m..720h; default 24h
	KilledFor    time.Duration `yaml:"killed_for"`    // how long a kill switch may be on before it is remarked; default 168h
	Exercise     time.Duration `yaml:"exercise"`      // how long ago a fault may have been exercised; default 2160h (90 days)
	Prices       Prices        `yaml:"prices"`        // of what calls use; default none
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	const day = 24 * time.Hour
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Every, 7 * day}, {&c.Window, day}, {&c.KilledFor, 7 * day}, {&c.Exercise, 90 * day}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	const day = 24 * time.Hour
	d := c.WithDefaults()
	var f setting.Faults
	f.Check(d.Every >= time.Minute && d.Every <= 365*day, "every", c.Every, "1m..8760h")
	f.Check(d.Window >= time.Minute && d.Window <= 30*day, "window", c.Window, "1m..720h")
	f.Check(d.KilledFor > 0, "killed_for", c.KilledFor, "a duration above 0")
	f.Check(d.Exercise > 0, "exercise", c.Exercise, "a duration above 0")
	p := c.Prices
	f.Check(p.CPUHour >= 0 && p.GiB >= 0 && p.ReplicaHour >= 0, "prices", p, "amounts that are not negative")
	f.Check(len(p.Currency) <= 8, "prices.currency", p.Currency, "up to 8 characters")
	if c.Webhook != "" {
		u, err := url.Parse(c.Webhook)
		f.Check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", "webhook", "this address", "http://... or https://...")
	}
	return f.Err()
}
