package httppolicy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/httppolicy"
	"github.com/longpole/longpole/limit"
	"github.com/longpole/longpole/retry"
)

// A server admits what it can serve and keeps its callers' deadlines; a client spreads its calls over two of them and goes
// to the other one when one fails.
func Example() {
	admission := httppolicy.HandlerOptions{Limit: limit.New(limit.Config{Queue: &limit.Queue{}}), Load: new(balance.ServerLoad)}
	good := httptest.NewServer(httppolicy.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadline, _ := r.Context().Deadline()
		fmt.Fprintln(w, "an order, well before", time.Until(deadline).Round(time.Second))
	}), admission))
	defer good.Close()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	}))
	defer bad.Close()

	policy, err := longpole.New(longpole.Config{
		Timeout: 2 * time.Second,
		Retry:   &retry.Config{BaseDelay: time.Millisecond, MinPerSecond: 10},
		Balance: &balance.Config{Algorithm: balance.RoundRobin},
		Breaker: &breaker.Config{},
	}, balance.NewSet(bad.URL, good.URL))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer policy.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := http.Client{Transport: httppolicy.NewTransport(policy, base, httppolicy.Options{})}

	for range 3 {
		res, err := client.Get("http://orders/17")
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Print(res.StatusCode, " ", string(body))
	}
	// Output:
	// 200 an order, well before 2s
	// 200 an order, well before 2s
	// 200 an order, well before 2s
}

// The classic mistake: two layers that retry. Each of three attempts of the outer one is three of the inner one, and a
// server that is down gets nine requests for one. One layer should retry, and the others should not.
func Example_incorrect() {
	var requests atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer down.Close()
	retrying := func(base http.RoundTripper) (http.RoundTripper, *longpole.Policy) {
		policy, err := longpole.New(longpole.Config{Retry: &retry.Config{BaseDelay: time.Millisecond, MinPerSecond: 10}}, nil)
		if err != nil {
			panic(err)
		}
		return httppolicy.NewTransport(policy, base, httppolicy.Options{}), policy
	}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	inner, one := retrying(base)
	defer one.Close()
	outer, two := retrying(inner)
	defer two.Close()

	r, _ := http.NewRequestWithContext(context.Background(), http.MethodPut, down.URL, strings.NewReader("17"))
	res, err := outer.RoundTrip(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	fmt.Println(res.StatusCode, "after", requests.Load(), "requests")
	// Output:
	// 503 after 9 requests
}
