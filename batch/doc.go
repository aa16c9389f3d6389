// Package batch joins many small calls into few large ones.
//
// Use it where one call for a hundred keys costs little more than a call for one: reads by key from a database or a
// service that has a bulk method. Do not use it where the bulk method's time grows with its size, nor to hide that a
// caller asks one by one for what it knows at once: there, let it ask for all.
//
// A call waits only while there is something to wait for. As long as fewer than Config.Idle batches are under way,
// everything goes out at once and nothing is slower than without batching; under load the calls that come while
// others are on their way make up the next batch. Beyond that, size, age and the tightest deadline of those that wait
// end the wait.
//
// A Joiner is told the time. It owns no goroutine, timer or clock, never blocks, and any number of goroutines may use
// it. longpole.Batcher runs one.
package batch
