// Package staging lets a change reach an environment only after it was verified in the one before: what was tried is named
// by the hash of its content, how it went there is a Record, and Fidelity says how much that is worth, given how alike the
// traffic and the settings of the two environments are.
//
// An environment is a gateway with a name. The one that Config.Requires names must have promoted the same change, on
// evidence, before a rollout of it may begin here. A Record travels as JSON: from the admin side of the other gateway, or as
// a file in a folder, which may be under version control.
//
// A high fidelity does not prove that production will behave as staging did; a low one says that staging proved little. The
// Transfer report compares both afterwards, and learns by what factor effects of each class shrink on the way.
//
// Everything is pure: told the time, owning no goroutine, reading nothing.
package staging
