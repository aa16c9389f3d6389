package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/longpole/longpole/call"
)

// sign is a Signpost.
type sign string

func (s sign) Size() int64 { return int64(len(s)) }
func (sign) Signpost()     {}

func put(t *testing.T, c *Cache, now time.Time, key string, v Value, terms Terms) {
	t.Helper()
	r := c.Find(now, key, Wish{Alone: true, Confirm: true})
	if !r.Lead {
		t.Fatalf("%q: %+v", key, r)
	}
	c.Store(now, r.Flight, v, terms, Place{})
}

func TestAWishNarrowsOrWidensWhatIsTaken(t *testing.T) {
	const s = time.Second
	tests := []struct {
		name  string
		terms Terms
		after time.Duration
		wish  Wish
		state call.CacheState
		value bool // of use if the fetch fails, or the answer
	}{
		{"fresh", Terms{Fresh: 10 * s}, 5 * s, Wish{}, call.Hit, true},
		{"confirmed only", Terms{Fresh: 10 * s}, 5 * s, Wish{Confirm: true}, call.Miss, false},
		{"young enough", Terms{Fresh: 10 * s, Age: 3 * s}, 5 * s, Wish{MaxAge: 8 * s}, call.Hit, true},
		{"too old", Terms{Fresh: 10 * s, Age: 4 * s}, 5 * s, Wish{MaxAge: 8 * s}, call.Miss, false},
		{"long enough", Terms{Fresh: 10 * s}, 5 * s, Wish{MinFresh: 5 * s}, call.Hit, true},
		{"not for long enough", Terms{Fresh: 10 * s}, 5 * s, Wish{MinFresh: 6 * s}, call.Miss, false},
		{"expired", Terms{Fresh: 10 * s}, 12 * s, Wish{}, call.Miss, false},
		{"expired, and welcome", Terms{Fresh: 10 * s}, 12 * s, Wish{MaxStale: 3 * s}, call.Stale, true},
		{"expired too long ago", Terms{Fresh: 10 * s}, 14 * s, Wish{MaxStale: 3 * s}, call.Miss, false},
		{"never stale", Terms{Fresh: 10 * s, Revalidate: -1, IfError: -1}, 12 * s, Wish{MaxStale: 3 * s}, call.Miss, false},
		{"its own window", Terms{Fresh: 10 * s, Revalidate: 5 * s}, 12 * s, Wish{}, call.Stale, true},
		{"beyond its own window", Terms{Fresh: 10 * s, Revalidate: 5 * s}, 15 * s, Wish{}, call.Miss, false},
		{"if it fails", Terms{Fresh: 10 * s, IfError: 5 * s}, 12 * s, Wish{}, call.Miss, true},
		{"came expired", Terms{Fresh: -5 * s}, 0, Wish{MaxStale: 6 * s}, call.Stale, true},
		{"does not suit", Terms{Fresh: 10 * s}, 0, Wish{Suits: func(Value) bool { return false }}, call.Miss, false},
		{"suits", Terms{Fresh: 10 * s}, 0, Wish{Suits: func(v Value) bool { return v == text("v") }}, call.Hit, true},
	}
	for _, tt := range tests {
		c := exact(Config{})
		put(t, c, t0, "k", text("v"), tt.terms)
		r := c.Find(t0.Add(tt.after), "k", tt.wish)
		if r.State != tt.state || (r.Value == text("v")) != tt.value || r.State == call.Miss && !r.Lead {
			t.Errorf("%s: %+v", tt.name, r)
		}
		if (r.Old == nil) != (tt.name == "does not suit") {
			t.Errorf("%s: what is kept is %v", tt.name, r.Old)
		}
		c.Close()
	}
}

func TestACallThatIsAloneWaitsForNobodyAndNobodyForIt(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	a := c.Find(t0, "k", Wish{Alone: true})
	lead := c.Find(t0, "k", Wish{})
	b := c.Find(t0, "k", Wish{Alone: true})
	if !a.Lead || !lead.Lead || !b.Lead || !a.Flight.Alone() || lead.Flight.Alone() || a.Flight == b.Flight {
		t.Fatal(a, lead, b)
	}
	c.Refuse(t0, a.Flight, errors.New("down"))
	follower := c.Find(t0, "k", Wish{})
	if follower.State != call.Coalesced || follower.Flight != lead.Flight {
		t.Error("the end of one that is alone ended another's:", follower)
	}
	c.Fill(t0, b.Flight, text("v"), 0) // yet what it brings is kept
	want(t, c, t0, "k", call.Hit, text("v"), false)
	c.Fill(t0, lead.Flight, text("w"), 0)
}

func TestNothingIsFetchedForWhoWantsOnlyWhatIsKept(t *testing.T) {
	c := exact(Config{StaleWhileRevalidate: time.Minute})
	defer c.Close()
	if r := c.Find(t0, "k", Wish{Only: true}); r.State != call.Miss || r.Lead || r.Flight != nil {
		t.Error(r)
	}
	put(t, c, t0, "k", text("v"), Terms{})
	if r := c.Find(t0.Add(20*time.Second), "k", Wish{Only: true}); r.State != call.Stale || r.Lead {
		t.Error(r)
	}
}

func TestWhatMustBeConfirmedIsNotGivenToThoseWhoWait(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	lead := c.Lookup(t0, "k")
	follower := c.Lookup(t0, "k")
	c.Store(t0, lead.Flight, text("v"), Terms{Fresh: -1, Revalidate: -1, IfError: -1}, Place{})
	if _, err := follower.Flight.Value(); !errors.Is(err, ErrConfirm) {
		t.Error(err)
	}
	for range 2 {
		if r := c.Lookup(t0, "k"); r.State != call.Miss || !r.Lead || !r.Flight.Alone() || r.Old != text("v") || r.Value != nil {
			t.Errorf("%+v", r)
		}
	}
}

func TestASignpostLeadsToTheAnswer(t *testing.T) {
	c := exact(Config{})
	defer c.Close()
	lead := c.Lookup(t0, "k")
	follower := c.Lookup(t0, "k")
	c.Store(t0, lead.Flight, text("v"), Terms{}, Place{Key: "k1", Base: "k", Sign: sign("s")})
	if s, at := follower.Flight.Place(); s != sign("s") || at != "k1" {
		t.Error(s, at)
	}
	if r := c.Lookup(t0.Add(time.Hour), "k"); r.Sign != sign("s") || r.Lead {
		t.Errorf("%+v", r)
	}
	want(t, c, t0, "k1", call.Hit, text("v"), false)
	// Another Signpost has come in meanwhile: it stays.
	r := c.Lookup(t0, "k2")
	c.Store(t0, r.Flight, text("w"), Terms{}, Place{Key: "k2", Base: "k", Sign: sign("late"), Was: sign("other")})
	if r := c.Lookup(t0, "k"); r.Sign != sign("s") {
		t.Errorf("%+v", r)
	}
	r = c.Lookup(t0, "k3")
	c.Store(t0, r.Flight, text("w"), Terms{}, Place{Key: "k3", Base: "k", Sign: sign("next"), Was: sign("s")})
	if r := c.Lookup(t0, "k"); r.Sign != sign("next") || c.Kept("k") != sign("next") || c.Kept("none") != nil {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsInvalidatedIsNotUsedAgain(t *testing.T) {
	c := exact(Config{StaleIfError: time.Hour, StaleWhileRevalidate: time.Hour})
	defer c.Close()
	put(t, c, t0, "k", text("v"), Terms{})
	c.Invalidate("k")
	lead := want(t, c, t0, "k", call.Miss, nil, true)
	follower := c.Lookup(t0, "k")
	c.Invalidate("k")
	next := want(t, c, t0, "k", call.Miss, nil, true) // does not wait for what is older
	c.Fill(t0, lead.Flight, text("old"), 0)
	if v, err := follower.Flight.Value(); v != text("old") || err != nil {
		t.Error(v, err)
	}
	if r := c.Lookup(t0, "k"); r.State != call.Coalesced || r.Flight != next.Flight {
		t.Errorf("%+v", r)
	}
	c.Fill(t0, next.Flight, text("new"), 0)
	want(t, c, t0, "k", call.Hit, text("new"), false)
}

func TestReplaceIsForWhatIsStillThere(t *testing.T) {
	c := exact(Config{MaxEntryBytes: 10})
	defer c.Close()
	put(t, c, t0, "k", text("v"), Terms{Fresh: time.Second})
	if c.Replace(t0, "k", text("other"), text("w"), Terms{}) || c.Replace(t0, "none", nil, text("w"), Terms{}) || c.Replace(t0, "k", text("v"), text("far too long"), Terms{}) {
		t.Error("replaced")
	}
	if !c.Replace(t0, "k", text("v"), text("w"), Terms{Fresh: time.Minute}) {
		t.Error("not replaced")
	}
	want(t, c, t0.Add(30*time.Second), "k", call.Hit, text("w"), false)
}

func TestTermsTravelWithWhatIsStored(t *testing.T) {
	s := Stored{Data: []byte("x"), Until: t0, Took: time.Second, Age: 2 * time.Second, Revalidate: 3 * time.Second, IfError: -1}
	got, err := Unpack(s.Pack())
	if err != nil || got.Age != s.Age || got.Revalidate != s.Revalidate || got.IfError >= 0 || string(got.Data) != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	c := exact(Config{StaleIfError: time.Hour, StaleWhileRevalidate: time.Hour})
	defer c.Close()
	r := c.Lookup(t0, "k")
	c.FillFrom(t0, r.Flight, text("v"), Stored{Until: t0.Add(5 * time.Second), Revalidate: time.Second, IfError: -1}, Place{})
	want(t, c, t0.Add(5*time.Second), "k", call.Stale, text("v"), true)
	if r := c.Find(t0.Add(7*time.Second), "k", Wish{Alone: true}); r.State != call.Miss || r.Value != nil || r.Old == nil {
		t.Errorf("%+v", r)
	}
}
