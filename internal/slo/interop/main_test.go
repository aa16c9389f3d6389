package interop_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longpole/longpole/internal/slo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// program is the path of one of Debian's package prometheus. Without it the test is skipped, or fails where CI=true says that
// everything is installed.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; scripts/setup-tests.sh installs it", name)
	}
	t.Skipf("no %s here; scripts/setup-tests.sh installs it", name)
	return ""
}

// objectives are one of each kind, each on a route of its own.
func objectives() []slo.Objective {
	return []slo.Objective{
		{Name: "orders-there", Route: "orders", Target: 0.999, Description: `Orders are answered: "quotes", {{ braces }}: and colons # too.`},
		{Name: "things-fast", Route: "catalogue", Target: 0.999, Threshold: 250 * time.Millisecond, Period: slo.Period(28 * slo.Day)},
	}
}
