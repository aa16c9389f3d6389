package staging

import (
	"net/url"
	"regexp"
	"time"

	"github.com/longpole/longpole/setting"
)

// Config makes a gateway one of several environments. The zero value is a gateway that stands alone.
type Config struct {
	Name     string        `yaml:"name"`      // of this environment, as staging; "" = none, and nothing is required
	Requires string        `yaml:"requires"`  // environment that must have verified a change before it is tried here; "" = none
	Records  string        `yaml:"records"`   // folder with its records, a JSON file each; this or url
	URL      string        `yaml:"url"`       // admin side of its gateway, http or https
	TokenEnv string        `yaml:"token_env"` // name of the environment variable that holds the token of that admin side; "" = it has none
	Patience time.Duration `yaml:"patience"`  // for its answer; 100ms..1m; default 5s
	Least    float64       `yaml:"least"`     // fidelity, 0..100, below which a verdict is weak: the first step is at most 1 % and takes twice the evidence; default 70
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.Least == 0 {
		c.Least = DefaultLeast
	}
	return c
}

// DefaultLeast is the fidelity below which a verdict is weak.
const DefaultLeast = 70

var (
	environmentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	variableName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	named := c.Name != ""
	f.Check(named || c.Requires == "", "name", c.Name, "the name of this environment")
	f.Check(!named || environmentName.MatchString(c.Name), "name", c.Name, "1..64 letters, digits and -_. characters")
	f.Check(c.Requires == "" || environmentName.MatchString(c.Requires) && c.Requires != c.Name, "requires", c.Requires, "the name of another environment")
	one := (c.Records == "") != (c.URL == "")
	f.Check(c.Requires == "" || one, "requires", c.Requires, "either records, a folder, or url, an admin side, to find its records")
	f.Check(c.Requires != "" || c.Records == "" && c.URL == "", "requires", c.Requires, "the environment whose records these are")
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		f.Check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil, "url", "this address", "http://HOST:PORT or https://..., without a password")
	}
	f.Check(c.TokenEnv == "" || variableName.MatchString(c.TokenEnv), "token_env", "this text", "the name of an environment variable")
	d := c.WithDefaults()
	f.Check(d.Patience >= 100*time.Millisecond && d.Patience <= time.Minute, "patience", c.Patience, "100ms..1m")
	f.Check(d.Least >= 0 && d.Least <= 100, "least", c.Least, "0..100")
	return f.Err()
}
