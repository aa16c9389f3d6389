// Package fleet acts on what the pure packages say of a running gateway: it feeds objectives and scalers with what was
// counted, sends alerts, keeps error budgets in a file, and offers the wanted number of replicas to those who can start them:
// as a KEDA external scaler, as metrics, as JSON, and to a scaler of its own for replicas on this machine.
//
// Nothing here is on the way of a call. A webhook that does not answer, a full disk or a Kubernetes that is away costs a
// count in the metrics and a line in the log.
package fleet
