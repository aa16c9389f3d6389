package grpcpolicy

import (
	"context"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"google.golang.org/grpc/metadata"
)

// MetadataPriority carries the priority of a call, and the cohort of its caller, to the next hop: "critical;cohort=17".
// Package httppolicy and the gateway call it X-Request-Priority.
const MetadataPriority = "x-request-priority"

// Forwarded is what a server takes a call to be by default, with the priority that its sender gives: for
// ServerOptions.Info of a server that only the gateway, or others who may choose it, can reach. Health checks stay exempt.
func Forwarded(ctx context.Context, method string) call.Info {
	info := serverInfo(ctx, method)
	if info.Priority == limit.Exempt {
		return info
	}
	if v := metadata.ValueFromIncomingContext(ctx, MetadataPriority); len(v) > 0 {
		if p, cohort, _, ok := call.ParseTier(v[0]); ok {
			info.Priority, info.Cohort = p, cohort
		}
	}
	return info
}
