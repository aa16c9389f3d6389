// Package probe reads evidence from the systems behind a trace: PostgreSQL, profiles, Redis, NATS JetStream, and the metrics of a process
// and its host. What it reads it hands over as values of internal/evidence, with no verdict.
//
// It is a guest. Every collector
//
//   - only reads, by commands that change nothing, and never runs a statement of the application;
//   - bounds each look by a time and a size, and asks for one thing at a time;
//   - keeps a Budget: a least pause between two looks for the same thing, and a most of server time per hour;
//   - stops asking when the server shows that it is overloaded (looks that time out, too many active sessions), for a pause that doubles
//     while this goes on;
//   - says as evidence.Gap what it could not read and why, and goes on with the rest.
//
// A look that the budget refuses fails with ErrTooSoon, ErrSpent or ErrResting before anything is sent.
package probe
