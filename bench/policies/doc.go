// Package policies measures the policy library beside its peers. It is a module of its own, so that they never enter
// the product's go.mod: scripts/bench-policies.sh runs it, docs/bench/policies.md has the results.
package policies
