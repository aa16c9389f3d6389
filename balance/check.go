package balance

// Check decides an endpoint's health from the results of active checks: it takes several of the same kind in a row
// to change it, so that one lost packet does not. It begins healthy. It is not safe for concurrent use: one checker owns it.
type Check struct {
	cfg  HealthConfig
	sick bool
	row  int // results in a row that contradict sick
}

// NewCheck returns a Check with the thresholds of c, which must be valid.
func NewCheck(c HealthConfig) *Check { return &Check{cfg: c.WithDefaults()} }

// Result takes in one check's result, and returns the health and whether this result changed it.
func (c *Check) Result(ok bool) (healthy, changed bool) {
	if ok != c.sick {
		c.row = 0
		return !c.sick, false
	}
	c.row++
	need := c.cfg.Unhealthy
	if c.sick {
		need = c.cfg.Healthy
	}
	if c.row < need {
		return !c.sick, false
	}
	c.sick, c.row = !c.sick, 0
	return !c.sick, true
}
