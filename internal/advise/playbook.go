package advise

import (
	"slices"

	"github.com/longpole/longpole/internal/diagnose"
	"github.com/longpole/longpole/internal/trace"
)

// Step is a stage of the playbook. Earlier ones are tried first: work that is gone needs no tuning.
type Step string

// The steps of the playbook in their order of preference.
const (
	StepRemove  Step = "remove work"
	StepOffload Step = "off the synchronous path"
	StepFewer   Step = "fewer calls and rows"
	StepCache   Step = "cache and precompute"
	StepTune    Step = "tune"
	StepScale   Step = "scale"
	StepGuard   Step = "guard"
	StepLook    Step = "look closer"
)

// Steps is every step, in order.
func Steps() []Step {
	return []Step{StepRemove, StepOffload, StepFewer, StepCache, StepTune, StepScale, StepGuard, StepLook}
}

func (s Step) place() int { return slices.Index(Steps(), s) }

// The kinds of action, each with a page in docs/actions.
const (
	KindReuse       = "reuse"       // an answer of the same request used again
	KindPayload     = "payload"     // fewer bytes
	KindAsync       = "async"       // work done after the answer
	KindBatch       = "batch"       // one call in place of many
	KindParallelise = "parallelise" // calls started together
	KindAnalyze     = "analyze"     // statistics that are true again
	KindIndex       = "index"       // fewer rows read
	KindCache       = "cache"       // answers kept
	KindPrecompute  = "precompute"  // answers made before they are asked for
	KindRetries     = "retries"     // fewer attempts
	KindTimeout     = "timeout"     // an earlier, or a later, end to waiting
	KindHedge       = "hedge"       // a second copy of a late call
	KindPool        = "pool"        // more connections
	KindUnlock      = "unlock"      // locks held for a shorter time
	KindOptimise    = "optimise"    // less CPU for the same work
	KindCollector   = "collector"   // shorter or fewer pauses of the garbage collector
	KindWarm        = "warm"        // endpoints that are warm before they get traffic
	KindReplicas    = "replicas"    // more endpoints
	KindDrain       = "drain"       // an endpoint taken out
	KindEject       = "eject"       // endpoints that do worse taken out by themselves
	KindBreaker     = "breaker"     // no calls to what keeps failing
	KindLimit       = "limit"       // no more calls than can be served, the important ones first
	KindDrill       = "drill"       // the failure provoked on purpose
	KindInvestigate = "investigate" // evidence to get before anything is changed
)

// An entry of the playbook is one kind of action: which findings it answers, and how it is planned.
type entry struct {
	kind    string
	step    Step
	answers []string // codes of findings; unknown = whatever no other entry answers
	// cure returns an action without a kind when it has nothing to offer, and then may say why; with an action, what it
	// says speaks against that.
	cure  func(*situation) (Action, string)
	needs []string // prerequisites
	watch []string // guardrail metrics
	plain bool     // may be proposed without a forecast: it guards, or finds out
}

// playbook is every entry in order of its step.
func playbook() []entry {
	return []entry{
		reuseEntry, payloadEntry, asyncEntry, batchEntry, parallelEntry, analyzeEntry, indexEntry, cacheEntry, precomputeEntry,
		retriesEntry, timeoutEntry, hedgeEntry, poolEntry, unlockEntry, optimiseEntry, collectorEntry, warmEntry,
		replicasEntry, drainEntry, ejectEntry, breakerEntry, limitEntry, drillEntry, investigateEntry,
	}
}

// Kinds is every kind of action in the playbook's order: work removed before work moved, fewer calls before caching, caching
// before tuning, tuning before scaling, guards last.
func Kinds() []string {
	entries := playbook()
	kinds := make([]string, len(entries))
	for i := range entries {
		kinds[i] = entries[i].kind
	}
	return kinds
}

// answersTo is the entries for a finding: those that name its code, or else the one that looks closer.
func answersTo(f *diagnose.Finding) []entry {
	for _, name := range []string{f.Code, "unknown"} {
		var found []entry
		for _, e := range playbook() {
			if slices.Contains(e.answers, name) && (e.kind != KindLimit || f.Segment != trace.SegQueue) { // messages wait, and are not refused
				found = append(found, e)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// complete adds to an action what the playbook says of its kind, and it does not say itself.
func (e *entry) complete(a *Action) {
	a.Step = e.step
	if a.Prerequisites == nil {
		a.Prerequisites = e.needs
	}
	if a.Watch == nil {
		a.Watch = e.watch
	}
	if a.Change != nil && a.Snippets == nil {
		a.Snippets = snippets(a.Change.Route, a.Change.From, a.Change.To)
	}
}
