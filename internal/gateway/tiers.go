package gateway

import (
	"net/http"

	"github.com/longpole/longpole/call"
)

// headerRetried says in a failure that its sender has tried again in vain, or may not: who asked should not (see
// retry.Passed). Without it each tier of gateways multiplies the attempts of the one above. It has no meaning to a client
// that does not know it, and none in an answer that is no failure.
const headerRetried = "X-Server-Retried"

// passed tells the caller about a failure what retry.Passed says. A call that may be repeated, and was not, ran out of the
// budget, or of time.
func (v *visit) passed(h http.Header) {
	switch v.rec.Class {
	case call.Server, call.Timeout, call.Refused:
	default:
		return
	}
	if v.arm == nil || v.rec.Count == 0 || v.rec.Count == 1 && (!v.arm.retries || !v.repeatable) {
		return
	}
	if h[headerRetried] = []string{"1"}; v.x.mode == framed {
		h[grpcPushbackField] = []string{"-1"}
	}
}

// retried reads it from a failure.
func retried(h http.Header) bool { return len(h[headerRetried]) > 0 }
