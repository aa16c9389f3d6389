package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/trace"
)

const (
	lockErrors = 3    // calls that fail by a lock, from where they are no accident
	lockRatio  = 0.02 // of the calls, the same
	lockCrowd  = 4.0  // standard errors by which waiting statements overlap more than others
	mutexWait  = 0.2  // seconds that goroutines wait for mutexes per second, from where they matter
	mutexPart  = 0.3  // of the time of a faint place, that the waits must make up
)

// lockWords are what programs call the spans in which they wait for a lock.
var lockWords = words("lock locks locking mutex semaphore synchronized monitor latch rwlock rlock wlock spinlock")

// lock finds LP110: time that is spent waiting for a lock, in the database or in a process.
func lock(v *view) []Finding {
	return append(v.databaseLocks(), v.processLocks()...)
}

func (v *view) databaseLocks() (found []Finding) {
	for _, s := range v.look().asked(trace.SegDatabase) {
		text := v.statementOf(s)
		chain := v.facts.Blocked(text)
		if s.faint && (chain == nil || 2*int64(chain.Longest) < meanOf(s.works)) {
			continue // a wait that was seen, mostly before its end, must be about as long as what it is to explain
		}
		f := v.finding("LP110", "lock", s, 0.55)
		f.Detail.Variant, f.Detail.Statement, f.Detail.Wait = "database", withoutLiterals(text), time.Duration(s.excess/int64(max(len(s.works), 1)))
		f.Summary = fmt.Sprintf("%s waits for a lock of its database for %s: %s", s.service, s.part(), shorten(f.Detail.Statement, s.operation))
		suspected := v.lockComplaints(&f, s)
		suspected = v.convoy(&f, s, text) || suspected
		if chain != nil {
			f.holder(chain)
			suspected = true
		} else if v.facts.Sessions() {
			f.doubt(0.2, "when the database was looked at no session waited to run this statement; a lock may have been held and let go between two looks")
		}
		if suspected {
			found = append(found, f)
		}
	}
	return found
}

// lockComplaints counts the calls that failed by a lock.
func (v *view) lockComplaints(f *Finding, s *suspect) bool {
	n := 0
	for _, w := range s.works {
		t, _ := v.span(w)
		if says(t.complaint(int(w.span)), "deadlock", "lock timeout", "lock wait timeout", "40p01", "55p03", "could not obtain lock", "lock request time out", "er_lock") {
			n++
		}
	}
	if n < lockErrors || float64(n) < lockRatio*float64(s.n) {
		return false
	}
	f.Verdict, f.Confidence = Likely, 0.85
	f.Evidence = append(f.Evidence, fmt.Sprintf("%d of %d calls failed by a lock: deadlock, or the wait for it timed out", n, s.n))
	return true
}

// convoy reports whether a statement that takes locks is long when others of its kind run.
func (v *view) convoy(f *Finding, s *suspect, text string) bool {
	if !takesLocks(text, s.operation) || s.constant {
		return false
	}
	same := &load{}
	for _, w := range s.works {
		_, span := v.span(w)
		same.add(span)
	}
	same.sort()
	c := v.crowdAt(s, same)
	if c.z < lockCrowd || c.long < 2*c.short || c.long < 0.5 {
		f.doubt(0, "the long ones did not run beside others of their kind")
		return false
	}
	f.Evidence = append(f.Evidence, fmt.Sprintf("it changes rows, and when the long ones began %.1f others of its kind were running, otherwise %.1f", c.long, c.short))
	f.doubt(0, "a statement that is slow when the server is busy looks the same; the server's lock waits would tell")
	return true
}

// takesLocks reports whether a statement locks rows or tables.
func takesLocks(text, operation string) bool {
	word := first(text)
	if word == "" {
		word = first(operation)
	}
	switch word {
	case "update", "delete", "insert", "merge", "replace", "upsert", "lock", "alter":
		return true
	}
	lower := strings.ToLower(text[:min(len(text), evidence.MaxStatement)])
	return strings.Contains(lower, "for update") || strings.Contains(lower, "for share") || strings.Contains(lower, "for no key update")
}

// holder names who holds up the waiting sessions.
func (f *Finding) holder(c *evidence.LockChain) {
	f.Detail.Holder, f.Detail.HolderPID = c.Root.Query, c.Root.PID
	f.Detail.Wait = max(f.Detail.Wait, c.Longest)
	who := fmt.Sprintf("process %d", c.Root.PID)
	if c.Root.Application != "" {
		who += " of " + c.Root.Application
	}
	state := c.Root.State
	if state == "" {
		state = "state not told"
	}
	line := fmt.Sprintf("%d sessions wait, the longest %s, for %s (%s", len(c.Waiters), duration(c.Longest), who, state)
	if c.Root.StateAge > 0 {
		line += " for " + duration(c.Root.StateAge)
	}
	f.confirm(0.95, line+"): "+shorten(c.Root.Query, "its query was not shown"))
	if len(c.Waiters) > 0 && c.Waiters[0].Relation != "" {
		f.Detail.Tables = []string{c.Waiters[0].Relation}
	}
}

// processLocks finds time in a process that its spans or its profiles tell to be spent waiting for a lock.
func (v *view) processLocks() (found []Finding) {
	for _, s := range v.look().asked(trace.SegService, trace.SegGateway) {
		f := v.finding("LP110", "lock", s, 0.75)
		f.Detail.Variant = "process"
		f.Summary = fmt.Sprintf("%s %s waits for a lock within its process for %s", s.service, s.operation, s.part())
		named := anyWord(s.operation, lockWords)
		if named {
			f.Evidence = append(f.Evidence, "the span is named after the lock that it waits for")
		}
		if v.mutexes(&f, s, named) && (!s.faint || f.Verdict == Confirmed) {
			found = append(found, f)
		}
	}
	return found
}

// waited is the seconds that each request of a service waits for mutexes, as its processes tell.
func (v *view) waited(service string) float64 {
	total := 0.0
	for _, p := range v.facts.Of(service, "") {
		if p.Runtime != nil && p.Runtime.MutexWait != nil {
			total += *p.Runtime.MutexWait
		}
	}
	return total / max(v.world.service(service).rate(), 1e-9)
}

// mutexes weighs what the processes tell of their locks; it is false where nothing speaks for one.
func (v *view) mutexes(f *Finding, s *suspect, named bool) bool {
	told := false
	for _, p := range v.facts.Of(s.service, "") {
		busy, known := p.Busy()
		if known && busy >= cpuBusy && !named {
			return false
		}
		if p.Runtime == nil || p.Runtime.MutexWait == nil {
			continue
		}
		told = true
		if *p.Runtime.MutexWait < mutexWait || s.faint && v.waited(s.service) < mutexPart*float64(meanOf(s.works))/1e9 {
			continue
		}
		f.confirm(0.9, fmt.Sprintf("goroutines of %s wait %.1f s for mutexes each second", process(p), *p.Runtime.MutexWait))
		if profile := p.Profile("mutex"); profile != nil {
			f.functions(profile)
		} else {
			f.functions(p.Profile("block"))
		}
	}
	if f.Verdict == Confirmed {
		return true
	}
	if told {
		f.doubt(0.4, "its runtime counts no waiting for mutexes; locks of the operating system and of other libraries are not in that count")
	}
	return named && f.Confidence >= 0.3
}
