package longpole_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/cache"
	"github.com/longpole/longpole/call"
)

// language is a Signpost: answers depend on who asks.
type language string

func (l language) Size() int64 { return int64(len(l)) }
func (language) Signpost()     {}

// selective is a storing whose answers come bit by bit, and depend on who asks.
type selective struct {
	storing
	wish  cache.Wish
	speak string // "" = answers are the same for all
	takes time.Duration
	fails error
	olds  *[]cache.Value
}

func (s *selective) Wish() cache.Wish { return s.wish }

func (s *selective) Under(base string, _ cache.Signpost) string { return base + s.speak }

func (s *selective) Whole(old cache.Value) longpole.Storable[*answer] {
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.olds = append(*s.olds, old)
	return s
}

func (s *selective) Keep(r *answer, _ int64) (k longpole.Kept[*answer], ok bool) {
	k.Rest = r
	k.Terms = cache.Terms{Fresh: time.Minute}
	if s.speak != "" {
		k.Place = cache.Place{Key: keyed.Key + s.speak, Base: keyed.Key, Sign: language("accept")}
	}
	k.Fill = func(keep func(cache.Value)) error {
		time.Sleep(s.takes)
		if s.fails == nil {
			keep(value(s.speak + r.value))
		}
		return s.fails
	}
	return k, true
}

func newSelective(speak string, takes time.Duration) *selective {
	return &selective{storing: storing{&script{steps: []step{ok10}, quiet: true}}, speak: speak, takes: takes, olds: new([]cache.Value)}
}

func (s *selective) ask(ctx context.Context, p *longpole.Policy) (string, call.CacheState, error) {
	var rec call.Record
	r, err := longpole.Do(ctx, p, keyed, &rec, s)
	if err != nil {
		return "", rec.Cache, err
	}
	r.close()
	return r.value, rec.Cache, nil
}

func TestTheCallThatFetchesHasItsAnswerAtItsHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Minute, Cache: &cache.Config{}})
		s := newSelective("", time.Second)
		if d := took(func() { s.ask(t.Context(), p) }); d != 10*ms {
			t.Error("the first waited", d)
		}
		if d := took(func() {
			if v, state, err := s.ask(t.Context(), p); v != "answer 1" || state != call.Coalesced || err != nil {
				t.Error(v, state, err)
			}
		}); d != time.Second {
			t.Error("the second waited", d)
		}
		if v, state, _ := s.ask(t.Context(), p); v != "answer 1" || state != call.Hit {
			t.Error(v, state)
		}
		time.Sleep(2 * time.Minute)
		s.ask(t.Context(), p)
		if olds := *s.olds; len(olds) != 2 || olds[0] != nil || olds[1] != value("answer 1") {
			t.Errorf("%v", olds)
		}
	})
}

// The context of the attempt lives until the last of the two, who fills and who reads, has no more need of it.
func TestAnAnswerThatIsTooLongIsStillTheFirstOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Timeout: time.Minute, Cache: &cache.Config{}})
		s := newSelective("", time.Second)
		s.fails = cache.ErrNotStorable
		r, err := longpole.Do(t.Context(), p, keyed, nil, s)
		if err != nil || !r.readable() {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if !r.readable() {
			t.Error("the body ended with the filling")
		}
		r.close()
		if r.readable() {
			t.Error("the body does not end")
		}
		r, _ = longpole.Do(t.Context(), p, keyed, nil, s)
		r.close()
		if !r.readable() {
			t.Error("the filling ended with its reader")
		}
		time.Sleep(2 * time.Second)
		if r.readable() {
			t.Error("the body does not end")
		}
	})
}

func TestThoseWhoWaitGetTheAnswerThatIsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		var run sync.WaitGroup
		works := map[string]*selective{"/de": newSelective("/de", 10*ms), "/en": newSelective("/en", 10*ms)}
		for range 10 {
			for speak, s := range works {
				run.Go(func() {
					if v, state, err := s.ask(t.Context(), p); err != nil || state != call.Miss && !strings.HasPrefix(v, speak) {
						t.Error(speak, v, state, err)
					}
				})
			}
		}
		run.Wait()
		for speak, s := range works {
			if v, state, err := s.ask(t.Context(), p); v != speak+"answer 1" || state != call.Hit || err != nil || s.tries() != 1 {
				t.Error(speak, v, state, err, s.tries())
			}
		}
		p.Invalidate(t.Context(), keyed.Key)
		if _, state, _ := works["/en"].ask(t.Context(), p); state != call.Miss {
			t.Error(state)
		}
	})
}

func TestACallMayWantWhatIsKeptOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, longpole.Config{Cache: &cache.Config{}})
		s := newSelective("", 0)
		s.wish.Only = true
		if _, state, err := s.ask(t.Context(), p); !errors.Is(err, longpole.ErrNotKept) || state != call.Miss || longpole.Class(err) != call.Client || s.tries() != 0 {
			t.Error(state, err, s.tries())
		}
		s.wish.Only = false
		s.ask(t.Context(), p)
		synctest.Wait()
		s.wish.Only = true
		if _, state, err := s.ask(t.Context(), p); state != call.Hit || err != nil {
			t.Error(state, err)
		}
		if v := p.Kept(keyed.Key); v != value("answer 1") || !p.Replace(keyed.Key, v, value("other"), cache.Terms{}) || p.Replace(keyed.Key, v, v, cache.Terms{}) {
			t.Error(v)
		}
	})
}
