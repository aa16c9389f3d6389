package cache

import (
	"time"

	"github.com/longpole/longpole/setting"
)

// Config of a Cache. The zero value means the defaults given at each field.
type Config struct {
	TTL                  time.Duration `yaml:"ttl"`                    // fresh for, when the answer does not say; default 10s
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate"` // after TTL: answer stale, refresh behind; default 0 = never (RFC 5861 section 3)
	StaleIfError         time.Duration `yaml:"stale_if_error"`         // after TTL: answer stale when the fetch fails; default 0 = never (RFC 5861 section 4)
	NegativeTTL          time.Duration `yaml:"negative_ttl"`           // fresh for, of an answer that says that there is nothing; default 1s, or TTL if that is shorter
	Jitter               float64       `yaml:"jitter"`                 // each answer is fresh for up to this share less, at random, so that those that came together do not go together; 0..1; default 5%
	EarlyRefresh         float64       `yaml:"early_refresh"`          // XFetch's beta: fetch anew before TTL by chance, the earlier the longer a fetch takes; 1 is optimal; default 0 = never
	RefreshAhead         float64       `yaml:"refresh_ahead"`          // share of its time before whose end a key of the Warm list is fetched anew; 0..1; default 20%
	Shared               bool          `yaml:"shared"`                 // ask and fill the second tier too, which several processes share, if there is one; default false
	Implicit             string        `yaml:"implicit"`               // what an answer of HTTP that does not say is taken for: ttl = fresh for TTL; heuristic = for a tenth of the time since its last change, up to a day; none = not fresh; default ttl where a ttl is given, heuristic where none is
	MaxBytes             int64         `yaml:"max_bytes"`              // of all entries; default 64MiB
	MaxEntryBytes        int64         `yaml:"max_entry_bytes"`        // larger answers pass through; default 1MiB
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Implicit == "" {
		// Who says how long knows the answers; who only turns the cache on gets what RFC 9111 section 4.2.2 allows.
		c.Implicit = "heuristic"
		if c.TTL > 0 {
			c.Implicit = "ttl"
		}
	}
	if c.TTL == 0 {
		c.TTL = 10 * time.Second
	}
	if c.NegativeTTL == 0 {
		c.NegativeTTL = min(time.Second, c.TTL)
	}
	if c.Jitter == 0 {
		c.Jitter = 0.05
	}
	if c.RefreshAhead == 0 {
		c.RefreshAhead = 0.2
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
	if c.MaxEntryBytes == 0 {
		c.MaxEntryBytes = 1 << 20
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.TTL >= 0, "ttl", c.TTL, "a duration that is not negative")
	f.Check(c.StaleWhileRevalidate >= 0, "stale_while_revalidate", c.StaleWhileRevalidate, "a duration that is not negative")
	f.Check(c.StaleIfError >= 0, "stale_if_error", c.StaleIfError, "a duration that is not negative")
	f.Check(c.NegativeTTL >= 0, "negative_ttl", c.NegativeTTL, "a duration that is not negative")
	f.Check(c.Jitter >= 0 && c.Jitter <= 1, "jitter", c.Jitter, "0%..100%")
	f.Check(c.EarlyRefresh >= 0 && c.EarlyRefresh <= 10, "early_refresh", c.EarlyRefresh, "0..10")
	f.Check(c.RefreshAhead >= 0 && c.RefreshAhead <= 1, "refresh_ahead", c.RefreshAhead, "0%..100%")
	f.Check(c.Implicit == "" || c.Implicit == "ttl" || c.Implicit == "heuristic" || c.Implicit == "none", "implicit", c.Implicit, "ttl, heuristic or none")
	f.Check(c.MaxBytes >= 0, "max_bytes", c.MaxBytes, "a size that is not negative")
	f.Check(c.MaxEntryBytes >= 0, "max_entry_bytes", c.MaxEntryBytes, "a size that is not negative")
	return f.Err()
}
