// Package grpcpolicy brings a longpole.Policy to grpc-go: interceptors for the side that calls and for the side that
// answers, for unary calls and for streams.
//
// # Calling
//
// UnaryClient makes a unary call under the whole policy. It is repeated, and hedged, only when its method is declared
// idempotent: by the idempotency_level of its definition (no_side_effects or idempotent), or by ClientOptions.Info.
// The server's grpc-retry-pushback-ms is honoured, a negative one means never; each further attempt carries
// grpc-previous-rpc-attempts. With several endpoints the policy picks one for each attempt, over a Pool of connections.
//
// StreamClient admits a stream, picks its endpoint, asks the breaker, and tells them how the stream's first message
// went. A stream is never repeated: after the first message nobody knows what was done.
//
// grpc-go has retries of its own. Do not stack them: dial with grpc.WithDisableRetry, as Pool does.
//
// # Answering
//
// UnaryServer and StreamServer admit calls by a limit.Limiter, refuse what cannot end before its deadline, and report
// the server's load, for Prequal, in the trailer. The deadline itself travels as grpc-timeout, which grpc-go writes
// and reads: each hop sends what is left.
//
// # Classes
//
// OK is ok. Canceled is canceled, DeadlineExceeded is timeout. Unavailable, Unknown, Internal and DataLoss are server.
// ResourceExhausted is server when it comes with a pushback, for then the server wants the call again, and client
// otherwise: a message that is too large stays so. All others are client: to ask again would bring the same answer.
package grpcpolicy
