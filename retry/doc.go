// Package retry decides when to make another attempt: after a failure (retry), or before one is known (hedge). Both
// spend one budget, so that neither can multiply the load of a dependency that is already in trouble.
//
// Use it for calls that are idempotent and for failures that pass. Do not use it for a dependency that is overloaded
// or down for long (the budget then only limits the damage; a breaker ends it), nor in more than one layer of a call
// tree, unless the layers tell each other with Passed: three tiers of three attempts are 27 attempts, of which the
// budgets alone leave 1.7, and 1.2 with Passed.
//
// A Policy is told the time. It owns no goroutine, timer or clock, and any number of goroutines may use it.
package retry
