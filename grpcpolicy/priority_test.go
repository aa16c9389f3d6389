package grpcpolicy

import (
	"context"
	"testing"

	"github.com/longpole/longpole/call"
	"github.com/longpole/longpole/limit"
	"google.golang.org/grpc/metadata"
)

func TestThePriorityOfASenderIsReadFromItsMetadata(t *testing.T) {
	tell := func(value string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(MetadataPriority, value))
	}
	if info := Forwarded(tell("background;cohort=9"), "/shop.Orders/Get"); info.Priority != call.Background || info.Cohort != 9 {
		t.Errorf("got %+v", info)
	}
	if info := Forwarded(tell("urgent"), "/shop.Orders/Get"); info.Priority != call.Normal {
		t.Errorf("got %+v", info)
	}
	if info := Forwarded(t.Context(), "/shop.Orders/Get"); info.Priority != call.Normal || info.Route != "/shop.Orders/Get" {
		t.Errorf("got %+v", info)
	}
	if info := Forwarded(tell("background"), "/grpc.health.v1.Health/Check"); info.Priority != limit.Exempt {
		t.Errorf("a health check is %+v", info)
	}
}
