// Package store keeps on disk what must outlive the process: histograms of what was measured, the traces worth keeping, and
// journals of what was decided.
//
// One folder holds it: a SQLite database (WAL, one writer, every transaction synced) for histograms, journals and the index
// of the traces, and a file of OTLP in zstd for each batch of traces. What a method returned without an error for is on
// disk: it survives the death of the process and of the machine. Everything is bounded by age, size or number; what
// was dropped for it is counted.
//
// A folder belongs to one process at a time.
package store
