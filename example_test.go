package longpole_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/balance"
	"github.com/longpole/longpole/breaker"
	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/retry"
)

// price asks one of several replicas for a price. A real one would speak HTTP or gRPC to a.Endpoint.
type price struct{ sku string }

func (p price) Try(ctx context.Context, a longpole.Attempt) (string, error) {
	if a.Endpoint == "10.0.0.1:80" {
		return "", errors.New("connection refused")
	}
	return p.sku + " costs 12.50", nil
}

func (p price) Judge(_ string, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: call.Refused}
	}
	return call.Outcome{Class: call.OK}
}

// A string needs no release: it outlives its attempt.
func (p price) Discard(string) {}

func (p price) Hold(answer string, release func()) string {
	release()
	return answer
}

// A Work says how one attempt is made and judged; the policy does the rest. Here one replica is down, and no caller
// notices: each failed attempt is followed by one at the other, and after a few the breaker keeps calls away from it.
func Example() {
	replicas := balance.NewSet("10.0.0.1:80", "10.0.0.2:80")
	policy, err := longpole.New(longpole.Config{
		Timeout: time.Second,
		Retry:   &retry.Config{MaxAttempts: 3, BaseDelay: time.Millisecond},
		Balance: &balance.Config{Algorithm: balance.RoundRobin},
		Breaker: &breaker.Config{MinCalls: 3},
	}, replicas)
	if err != nil {
		fmt.Println(err) // all faults at once, each with its path and what is allowed
		return
	}
	defer policy.Close()

	for range 9 {
		info := call.Info{Route: "price", Idempotent: true}
		answer, err := longpole.Do(context.Background(), policy, info, nil, price{"A-17"})
		if err != nil {
			fmt.Println(longpole.Class(err), err)
			return
		}
		fmt.Println(answer)
	}
	fmt.Println("10.0.0.1:80 is", policy.Breaker(time.Now(), "10.0.0.1:80"))
	// Output:
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// A-17 costs 12.50
	// 10.0.0.1:80 is open
}

// charge takes money. The first answer gets lost on its way back, after the money was taken.
type charge struct{ taken *int }

func (c charge) Try(context.Context, longpole.Attempt) (string, error) {
	*c.taken++
	if *c.taken == 1 {
		return "", errors.New("connection reset")
	}
	return "thank you", nil
}

func (c charge) Judge(_ string, err error) call.Outcome {
	if err != nil {
		return call.Outcome{Class: call.Server}
	}
	return call.Outcome{}
}
func (c charge) Discard(string) {}
func (c charge) Hold(answer string, release func()) string {
	release()
	return answer
}

// The classic mistake: to call something idempotent that is not, so that it is retried and hedged. The customer pays
// twice. The other half of the mistake is a budget so large that it is none: in an outage every call then becomes
// MaxAttempts calls, just when the dependency can serve the fewest.
func Example_incorrect() {
	policy, err := longpole.New(longpole.Config{
		Retry: &retry.Config{BaseDelay: time.Millisecond, BudgetRatio: 1, MinPerSecond: 1e6}, // wrong: no budget
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer policy.Close()

	taken := 0
	wrong := call.Info{Route: "charge", Idempotent: true} // wrong: to charge twice is not to charge once
	answer, _ := longpole.Do(context.Background(), policy, wrong, nil, charge{&taken})
	fmt.Println("declared idempotent:", answer, "- charged", taken, "times")

	taken = 0
	right := call.Info{Route: "charge"} // or give the call an idempotency key that the server honours
	_, err = longpole.Do(context.Background(), policy, right, nil, charge{&taken})
	fmt.Println("as it is:", longpole.Class(err), "- charged", taken, "times")
	// Output:
	// declared idempotent: thank you - charged 2 times
	// as it is: server - charged 1 times
}

// list has an empty answer for when the dependency has none.
type list struct{ price }

func (list) Try(context.Context, longpole.Attempt) (string, error) {
	return "", errors.New("connection refused")
}

func (list) Fallback(_ context.Context, f longpole.Fallback, class call.Class, _ error) (string, error) {
	return f.Static.Body, nil
}

// A worse answer is often better than none. The record still says that the call failed.
func ExampleFallback() {
	policy, err := longpole.New(longpole.Config{
		Fallback: &longpole.Fallback{Static: &longpole.Static{Body: "no recommendations today"}},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer policy.Close()
	var record call.Record
	answer, err := longpole.Do(context.Background(), policy, call.Info{Route: "recommendations"}, &record, list{})
	fmt.Println(answer, err)
	fmt.Println(record.Class, record.Fallback)
	// Output:
	// no recommendations today <nil>
	// refused true
}
