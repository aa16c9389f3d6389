// Package scenario is the file that describes a system to try Longpole on: its services and what they do, the load, the
// problems that come up on a time line, and the truth that a diagnosis should find.
//
// The format is strict YAML, read by internal/conf: [Read] finds every fault of a file at once, each with its line. What
// a file means is told field by field below, and with worked examples in docs/lab.md. Times are durations (250ms), sizes
// have units (64KiB), shares are 0..1 or percent (5%). All types are plain values; nothing here runs anything.
package scenario
