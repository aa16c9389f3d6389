package evidence

import (
	"cmp"
	"slices"
	"time"
)

// Backend is one session of a PostgreSQL server at one moment.
type Backend struct {
	PID         int           `json:"pid"` // 0 = a prepared transaction, which has no session
	Database    string        `json:"database,omitempty"`
	User        string        `json:"user,omitempty"`
	Application string        `json:"application,omitempty"`
	Client      string        `json:"client,omitempty"`    // its address
	State       string        `json:"state,omitempty"`     // active, idle, idle in transaction …; "" = not told
	WaitType    string        `json:"wait_type,omitempty"` // Lock, LWLock, IO, Client …
	Wait        string        `json:"wait,omitempty"`
	Query       string        `json:"query,omitempty"`  // running, or last run when idle; cut by track_activity_query_size
	Hidden      bool          `json:"hidden,omitempty"` // state and query belong to another user, and were not shown
	XactAge     time.Duration `json:"xact_age_ns,omitempty"`
	QueryAge    time.Duration `json:"query_age_ns,omitempty"`
	StateAge    time.Duration `json:"state_age_ns,omitempty"` // since the state last changed
	WaitAge     time.Duration `json:"wait_age_ns,omitempty"`  // for a lock; 0 = not told (before PostgreSQL 14)
	BlockedBy   []int         `json:"blocked_by,omitempty"`   // pids, distinct
	LockType    string        `json:"lock_type,omitempty"`    // of the lock it waits for: relation, transactionid, tuple …
	LockMode    string        `json:"lock_mode,omitempty"`
	Relation    string        `json:"relation,omitempty"` // of the lock it waits for, where it has one
}

// Waited is how long b has waited for its lock; where the server does not tell, how long its statement runs, which is an upper bound.
func (b Backend) Waited() time.Duration {
	if b.WaitAge > 0 {
		return b.WaitAge
	}
	return b.QueryAge
}

// Waiter is a backend that a chain holds up.
type Waiter struct {
	Backend
	Depth int `json:"depth"` // 1 = waits for the root itself
}

// LockChain is a backend that waits for nobody, and all who wait for it, directly or not.
type LockChain struct {
	Root    Backend       `json:"root"`
	Waiters []Waiter      `json:"waiters"` // by depth, then by pid
	Longest time.Duration `json:"longest_wait_ns"`
	Cycle   bool          `json:"cycle,omitempty"` // they wait for each other: a deadlock that the server has not yet resolved
}

// LockChains finds the roots of all waiting. A backend that waits for several stands in the chain of each. The chain with most
// waiters comes first, then that with the longest wait.
func LockChains(backends []Backend) []LockChain {
	byPID := map[int]Backend{}
	waitsFor := map[int][]int{} // blocker to those that it blocks
	for _, b := range backends {
		byPID[b.PID] = b
		for _, p := range b.BlockedBy {
			waitsFor[p] = append(waitsFor[p], b.PID)
		}
	}
	var out []LockChain
	covered := map[int]bool{}
	for _, root := range sortedKeys(waitsFor) {
		if len(byPID[root].BlockedBy) == 0 {
			out = append(out, chain(root, byPID, waitsFor, covered))
		}
	}
	for _, pid := range sortedKeys(waitsFor) { // what is left has no root
		if !covered[pid] {
			c := chain(pid, byPID, waitsFor, covered)
			c.Cycle = true
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b LockChain) int {
		return cmp.Or(cmp.Compare(len(b.Waiters), len(a.Waiters)), cmp.Compare(b.Longest, a.Longest))
	})
	return out
}

func chain(root int, byPID map[int]Backend, waitsFor map[int][]int, covered map[int]bool) LockChain {
	b, known := byPID[root]
	if !known {
		b = Backend{PID: root}
	}
	c := LockChain{Root: b}
	covered[root] = true
	seen := map[int]bool{root: true}
	for level, depth := []int{root}, 1; len(level) > 0; depth++ {
		var next []int
		for _, pid := range level {
			for _, w := range waitsFor[pid] {
				if !seen[w] {
					seen[w], covered[w] = true, true
					next = append(next, w)
				}
			}
		}
		slices.Sort(next)
		for _, pid := range next {
			w := byPID[pid]
			c.Waiters = append(c.Waiters, Waiter{w, depth})
			c.Longest = max(c.Longest, w.Waited())
		}
		level = next
	}
	return c
}

func sortedKeys[V any](m map[int]V) []int {
	out := make([]int, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Sessions counts the connections of a server.
type Sessions struct {
	Max            int            `json:"max"`      // max_connections
	Reserved       int            `json:"reserved"` // of them for superusers
	Total          int            `json:"total"`    // of clients
	ByState        map[string]int `json:"by_state"` // "active", "idle in transaction", … ; "hidden" for those of other users
	LongestIdle    time.Duration  `json:"longest_idle_in_transaction_ns"`
	LongestXact    time.Duration  `json:"longest_transaction_ns"`
	WaitingForLock int            `json:"waiting_for_lock"`
	ByApplication  []AppSessions  `json:"by_application,omitempty"` // most sessions first
	Limits         []SessionLimit `json:"limits,omitempty"`         // of roles and databases that have one
	Refused        bool           `json:"refused,omitempty"`        // the server had no connection for us: it is full
}

// AppSessions are the connections of one application as one user. The server sees no pool: a pool that is empty shows as an
// application whose sessions are all busy or all idle in transaction, and whose number does not grow.
type AppSessions struct {
	Application string `json:"application"`
	User        string `json:"user"`
	Database    string `json:"database"`
	Total       int    `json:"total"`
	Active      int    `json:"active"`
	Idle        int    `json:"idle"`
	IdleInXact  int    `json:"idle_in_transaction"` // they hold a connection, and maybe locks, and do nothing
	Hidden      int    `json:"hidden,omitempty"`
}

// SessionLimit is CONNECTION LIMIT of a role or a database, and how much of it is taken.
type SessionLimit struct {
	Of   string `json:"of"` // "role app", "database shop"
	Max  int    `json:"max"`
	Used int    `json:"used"`
}

// Full is the share of the connections that are taken, 0..1, of the tightest limit.
func (s Sessions) Full() float64 {
	if s.Refused {
		return 1
	}
	full := 0.0
	if n := s.Max - s.Reserved; n > 0 {
		full = float64(s.Total) / float64(n)
	}
	for _, l := range s.Limits {
		if l.Max > 0 {
			full = max(full, float64(l.Used)/float64(l.Max))
		}
	}
	return min(1, full)
}

// CountSessions counts the client backends.
func CountSessions(backends []Backend) Sessions {
	s := Sessions{ByState: map[string]int{}}
	type key struct{ app, user, db string }
	apps := map[key]*AppSessions{}
	for _, b := range backends {
		k := key{b.Application, b.User, b.Database}
		a := apps[k]
		if a == nil {
			a = &AppSessions{Application: b.Application, User: b.User, Database: b.Database}
			apps[k] = a
		}
		s.Total++
		a.Total++
		s.LongestXact = max(s.LongestXact, b.XactAge)
		if b.WaitType == "Lock" {
			s.WaitingForLock++
		}
		state := b.State
		switch {
		case b.Hidden:
			state = "hidden"
			a.Hidden++
		case state == "active":
			a.Active++
		case state == "idle":
			a.Idle++
		case state == "idle in transaction" || state == "idle in transaction (aborted)":
			a.IdleInXact++
			s.LongestIdle = max(s.LongestIdle, b.StateAge)
		}
		s.ByState[state]++
	}
	for _, a := range apps {
		s.ByApplication = append(s.ByApplication, *a)
	}
	slices.SortFunc(s.ByApplication, func(a, b AppSessions) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Application, b.Application), cmp.Compare(a.User, b.User), cmp.Compare(a.Database, b.Database))
	})
	return s
}
