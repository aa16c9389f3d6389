package balance

import (
	"sync"
	"testing"
	"time"
)

func TestSharingEstimateFollowsTheLoad(t *testing.T) {
	var s ServerLoad
	if l := s.Load(t0); l != (Load{}) {
		t.Error(l)
	}
	// Ten at a time take 100 ms each: a request costs 10 ms for each that it shares the server with.
	for range 20 {
		var met []int
		for range 10 {
			met = append(met, s.Begin())
		}
		for _, rif := range met {
			s.End(t0, rif, time.Duration(rif)*10*ms, true)
		}
	}
	for rif := range 30 {
		if l := s.Load(t0); l.RIF != rif || l.Latency != time.Duration(rif+1)*10*ms {
			t.Fatal(rif, l)
		}
		s.Begin()
	}
}

func TestMedianEstimateTakesTheNearest(t *testing.T) {
	s := ServerLoad{Estimator: Median}
	for rif := 1; rif <= 100; rif++ {
		s.rif.Store(int64(rif))
		s.End(t0, rif, time.Duration(rif)*ms, true)
	}
	for _, rif := range []int{20, 50, 80} {
		s.rif.Store(int64(rif))
		if l := s.Load(t0); l.Latency < time.Duration(rif-1)*ms || l.Latency > time.Duration(rif+1)*ms {
			t.Error(rif, l)
		}
	}
	s.rif.Store(1000)
	if l := s.Load(t0); l.Latency != 96*ms {
		t.Error(l)
	}
}

func TestFailuresAreNoSamplesOfTheServer(t *testing.T) {
	var s ServerLoad
	s.End(t0, s.Begin(), 50*ms, true)
	for range 1000 {
		s.End(t0, s.Begin(), 0, false)
	}
	if l := s.Load(t0); l.Latency != 50*ms || l.RIF != 0 {
		t.Error(l)
	}
}

func TestOldSamplesGoButNotTheLast(t *testing.T) {
	var s ServerLoad
	for i := range 300 {
		s.End(after(time.Duration(i)*ms), s.Begin(), time.Second, true)
	}
	for range 20 {
		s.End(after(30*time.Second), s.Begin(), 10*ms, true)
	}
	if l := s.Load(after(31 * time.Second)); l.Latency != 10*ms {
		t.Error(l)
	}
	if l := s.Load(after(time.Hour)); l.Latency != 10*ms || s.size != finishesKept {
		t.Error(l, s.size)
	}
}

func TestServerLoadIsSafeAndAllocatesNothing(t *testing.T) {
	for _, e := range []Estimator{Sharing, Median} {
		s := ServerLoad{Estimator: e}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					s.End(t0, s.Begin(), ms, true)
					s.Load(t0)
				}
			})
		}
		wg.Wait()
		if l := s.Load(t0); l.RIF != 0 {
			t.Error(l)
		}
		if n := testing.AllocsPerRun(100, func() { s.End(t0, s.Begin(), ms, true); s.Load(t0) }); n != 0 {
			t.Error(n, "allocations")
		}
	}
}
