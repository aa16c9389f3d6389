package limit

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// line up calls named by their letter behind one that holds the only permit, then serve them one by one.
type lineup struct {
	l       *Limiter
	held    Ticket
	names   []string
	tickets []Ticket
	now     time.Duration
}

func newLineup(q Queue, tenants int) *lineup {
	if q.Target == 0 {
		q.Target = time.Hour
	}
	if q.MaxAge == 0 {
		q.MaxAge = time.Hour
	}
	l := New(Config{Algorithm: Fixed, Limit: 1, Tenants: tenants, Queue: &q})
	return &lineup{l: l, held: l.Admit(at(0), call.Info{}, never)}
}

func (u *lineup) add(name string, info call.Info) {
	u.now += ms
	u.names = append(u.names, name)
	u.tickets = append(u.tickets, u.l.Admit(at(u.now), info, never))
}

// served is the order in which those that wait get the permit.
func (u *lineup) served() string {
	var order []string
	for u.l.Queued() > 0 {
		u.now += ms
		u.l.Done(at(u.now), u.held, good)
		for i, ticket := range u.tickets {
			if ticket.Admitted() {
				order = append(order, u.names[i])
				u.held, u.tickets[i] = ticket, Ticket{err: ErrShed}
			}
		}
	}
	return strings.Join(order, " ")
}

func (u *lineup) refused() string {
	var names []string
	for i, ticket := range u.tickets {
		if errors.Is(ticket.Refused(), ErrShed) {
			names = append(names, u.names[i])
		}
	}
	return strings.Join(names, " ")
}

func TestHigherTiersGoFirst(t *testing.T) {
	u := newLineup(Queue{Length: 20, LIFOAbove: 20}, 0)
	for i, p := range []call.Priority{call.Deferrable, call.Normal, call.Critical, call.Speculative, call.Critical, call.Important, call.Background} {
		u.add(fmt.Sprint(i), call.Info{Priority: p})
	}
	if got := u.served(); got != "2 4 5 1 0 6 3" {
		t.Errorf("served %s", got)
	}
}

func TestADeepQueueServesTheNewestFirst(t *testing.T) {
	u := newLineup(Queue{Length: 20, LIFOAbove: 3}, 0)
	for i := range 6 {
		u.add(fmt.Sprint(i), call.Info{})
	}
	if got := u.served(); got != "5 4 3 0 1 2" {
		t.Errorf("served %s; want the newest while more than three wait, then the oldest", got)
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	u := newLineup(Queue{Length: 20, LIFOAbove: 20}, 0)
	for name := range strings.FieldsSeq("a1 a2 a3 a4 b1 b2 c1") {
		u.add(name, call.Info{Tenant: name[:1]})
	}
	if got := u.served(); got != "a1 b1 c1 a2 b2 a3 a4" {
		t.Errorf("served %s", got)
	}
}

func TestATenantThatComesLateGetsNoMoreThanItsTurn(t *testing.T) {
	u := newLineup(Queue{Length: 40, LIFOAbove: 40}, 0)
	for i := range 6 {
		u.add(fmt.Sprint("a", i), call.Info{Tenant: "a"})
	}
	for range 3 { // a is served three times while it is alone
		u.now += ms
		u.l.Done(at(u.now), u.held, good)
		for i, ticket := range u.tickets {
			if ticket.Admitted() {
				u.held, u.tickets[i] = ticket, Ticket{err: ErrShed}
			}
		}
	}
	for i := range 3 {
		u.add(fmt.Sprint("b", i), call.Info{Tenant: "b"})
	}
	if got := u.served(); got != "b0 a3 b1 a4 b2 a5" && got != "a3 b0 a4 b1 a5 b2" {
		t.Errorf("served %s; want turns from now on, and no arrears", got)
	}
}

func TestAFullQueueMakesRoomFromTheLowestTier(t *testing.T) {
	u := newLineup(Queue{Length: 3, LIFOAbove: 3}, 0)
	u.add("low", call.Info{Priority: call.Background})
	u.add("normal", call.Info{})
	u.add("high", call.Info{Priority: call.Important})
	u.add("critical", call.Info{Priority: call.Critical})
	if got := u.refused(); got != "low" {
		t.Errorf("refused: %q, want the lowest", got)
	}
	u.add("lower", call.Info{Priority: call.Deferrable})
	if got := u.refused(); got != "low lower" {
		t.Errorf("refused: %q, want the newcomer that is lower than all that wait", got)
	}
}

func TestAFullQueueMakesRoomFromTheTenantThatWaitsMost(t *testing.T) {
	u := newLineup(Queue{Length: 3, LIFOAbove: 3}, 0)
	for name := range strings.FieldsSeq("a1 a2 a3 b1 b2") {
		u.add(name, call.Info{Tenant: name[:1]})
	}
	if got := u.refused(); got != "a1 b2" {
		t.Errorf("refused: %q; want one of a's three for b's first, and then b's second", got)
	}
}

func TestAFullQueueMakesRoomFromTheHighestCohort(t *testing.T) {
	u := newLineup(Queue{Length: 3, LIFOAbove: 3}, 0)
	for _, cohort := range []uint8{5, 100, 50, 20, 127} {
		u.add(fmt.Sprint(cohort), call.Info{Cohort: cohort})
	}
	if got := u.refused(); got != "100 127" {
		t.Errorf("refused: %q", got)
	}
}

func TestTenantsBeyondTheBoundShareOneTurn(t *testing.T) {
	u := newLineup(Queue{Length: 40, LIFOAbove: 40}, 2)
	for name := range strings.FieldsSeq("a1 a2 b1 b2 c1 d1 e1 f1") {
		u.add(name, call.Info{Tenant: name[:1]})
	}
	if n := len(u.l.queue.levels[tier(call.Normal)].lines); n != 3 {
		t.Errorf("%d lines, want two tenants and the rest", n)
	}
	if got := u.served(); got != "a1 b1 c1 a2 b2 d1 e1 f1" {
		t.Errorf("served %s", got)
	}
	for i := range 1000 {
		u.add(fmt.Sprint(i), call.Info{Tenant: fmt.Sprint(i)})
		u.served()
	}
	if n := len(u.l.queue.levels[tier(call.Normal)].lines); n > 3 {
		t.Errorf("%d lines after a thousand tenants", n)
	}
}

// Waits of 30 ms are twice the target and more; those below 2 x 10 ms are not.
func TestCoDelDropsWhatWaitedTwiceTheTargetWhileEveryCallOfAnIntervalWaitedTooLong(t *testing.T) {
	var c codel
	const target = int64(10 * ms)
	for _, step := range []struct {
		at, waited time.Duration
		drop       bool
	}{
		{0, 30 * ms, false},         // the first interval knows nothing
		{50 * ms, 15 * ms, false},   // shortest of it: above the target
		{100 * ms, 30 * ms, false},  // the first of an interval is never dropped
		{110 * ms, 30 * ms, true},   // overloaded, twice the target
		{120 * ms, 20 * ms, false},  // overloaded, not more than twice
		{130 * ms, 5 * ms, false},   // one that waited little ends it with the interval
		{140 * ms, 30 * ms, true},   // still the same interval
		{200 * ms, 30 * ms, false},  // the next
		{210 * ms, 30 * ms, false},  // is not overloaded
		{300 * ms, 30 * ms, false},  // as all waited 30 ms
		{310 * ms, 30 * ms, true},   // this one is
		{3000 * ms, 30 * ms, false}, // nobody waited for seconds: no permanent queue
		{3010 * ms, 30 * ms, false},
	} {
		if got := c.drops(int64(step.at), int64(step.waited), target); got != step.drop {
			t.Errorf("at %v after %v: dropped %v", step.at, step.waited, got)
		}
	}
}

func TestTheTargetIsAShareOfTheTimeThatCallsHave(t *testing.T) {
	l := New(Config{Queue: &Queue{}})
	if got := l.target(); got != int64(50*ms) {
		t.Errorf("%v without deadlines, want 50ms", time.Duration(got))
	}
	for range 1000 {
		l.Admit(at(0), call.Info{}, at(400*ms))
	}
	if got := l.target(); got != int64(20*ms) {
		t.Errorf("%v of 400ms, want 5 %%", time.Duration(got))
	}
	if got := New(Config{Queue: &Queue{Target: 7 * ms}}).target(); got != int64(7*ms) {
		t.Errorf("%v, want what was set", time.Duration(got))
	}
}
