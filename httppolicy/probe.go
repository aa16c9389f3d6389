package httppolicy

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
)

var errNoLoad = errors.New("httppolicy: the answer tells no load")

// NewProber asks endpoints for their load by GET path ("" = ProbePath) with base (nil = http.DefaultTransport), for
// longpole.Policy.SetProber. An endpoint without a scheme is asked by http.
func NewProber(base http.RoundTripper, path string) longpole.Prober {
	if base == nil {
		base = http.DefaultTransport
	}
	path = cmp.Or(path, ProbePath)
	return func(ctx context.Context, endpoint string) (balance.Load, error) {
		to, err := locate(&url.URL{Scheme: "http", Path: path}, endpoint)
		if err != nil {
			return balance.Load{}, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
		if err != nil {
			return balance.Load{}, err
		}
		res, err := base.RoundTrip(r)
		if err != nil {
			return balance.Load{}, err
		}
		_ = res.Body.Close()
		l, ok := balance.ParseLoad(res.Header.Get(HeaderLoad))
		if !ok {
			return balance.Load{}, errNoLoad
		}
		return l, nil
	}
}

// Load reads the report of a server in an answer.
func (x *exchange) Load(res *http.Response) (balance.Load, bool) {
	return balance.ParseLoad(res.Header.Get(HeaderLoad))
}
