package fleet

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/longpole/longpole/internal/scale"
)

const (
	kedaMetric = "longpole_desired_replicas"
	maxRequest = 64 << 10
	maxStreams = 256 // of StreamIsActive at once; KEDA keeps one for each ScaledObject
)

// KEDA serves a Board as a KEDA external scaler. A ScaledObject names its workload in the trigger's metadata as `workload`;
// without that the ScaledObject's own name is taken.
//
// The metric is the desired number of replicas, its target is 1: Kubernetes divides one by the other and gets that number.
// Its autoscaler ignores a change of up to a tenth (--horizontal-pod-autoscaler-tolerance), so that 11 instead of 10 waits
// until it is 12. With dry_run the metric is what there is, so that nothing moves. When a recommendation is older than a
// minute the answer is UNAVAILABLE, and Kubernetes leaves the replicas as they are.
//
// Make one with NewKEDA, and Serve or Register it. Safe for concurrent use.
//
// Source: kedacore/keda, pkg/scalers/externalscaler/externalscaler.proto. StreamMetricSpec is left out, as the target never
// changes; KEDA then asks GetMetricSpec.
type KEDA struct {
	board   *Board
	streams atomic.Int64
	closing chan struct{}
	closed  atomic.Bool
}

// NewKEDA serves b.
func NewKEDA(b *Board) *KEDA { return &KEDA{board: b, closing: make(chan struct{})} }

// Register adds the service to a gRPC server, before that serves.
func (k *KEDA) Register(s grpc.ServiceRegistrar) { s.RegisterService(&kedaDesc, k) }

// Serve answers on l, by a server of its own, until ctx ends or l errs.
func (k *KEDA) Serve(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams))
	k.Register(server)
	stop := context.AfterFunc(ctx, func() {
		k.Close()
		server.Stop()
	})
	defer stop()
	return server.Serve(l)
}

// Close ends the streams, which would keep a graceful stop of the server from ending. It may be called again.
func (k *KEDA) Close() {
	if k.closed.CompareAndSwap(false, true) {
		close(k.closing)
	}
}

func workload(ref *scaledObjectRef) string {
	if name := ref.ScalerMetadata["workload"]; name != "" {
		return name
	}
	return ref.Name
}

// find is the recommendation for ref, or the error that KEDA gets.
func (k *KEDA) find(ref *scaledObjectRef) (scale.Recommendation, error) {
	if ref == nil {
		return scale.Recommendation{}, status.Error(codes.InvalidArgument, "fleet: no scaledObjectRef; want one")
	}
	r, ok := k.board.Get(time.Now(), workload(ref))
	switch {
	case ok:
		return r, nil
	case r.Name != "":
		return r, status.Errorf(codes.Unavailable, "fleet: the recommendation for workload %q is %s old; want %s at most", r.Name, time.Since(r.At).Round(time.Second), staleAfter)
	}
	return r, status.Errorf(codes.NotFound, "fleet: no workload %q; want the name of one in `scale`, as `workload` in the trigger's metadata", workload(ref))
}

// active is what KEDA scales to and from zero by. A dry run keeps what there is.
func active(r scale.Recommendation) bool { return r.Active || r.DryRun }

func (k *KEDA) isActive(_ context.Context, ref *scaledObjectRef) (*isActiveResponse, error) {
	r, err := k.find(ref)
	if err != nil {
		return nil, err
	}
	return &isActiveResponse{Result: active(r)}, nil
}

// streamIsActive sends the state at once, and again whenever it is another one. A workload that is not known yet, as right
// after a start, is waited for.
func (k *KEDA) streamIsActive(ref *scaledObjectRef, stream grpc.ServerStream) error {
	if k.streams.Add(1) > maxStreams {
		k.streams.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "fleet: more than %d streams", maxStreams)
	}
	defer k.streams.Add(-1)
	sent, last := false, false
	for {
		changed := k.board.Changed() // before the look, so that nothing is missed between
		if r, err := k.find(ref); err == nil && (!sent || active(r) != last) {
			sent, last = true, active(r)
			if err := stream.SendMsg(&isActiveResponse{Result: last}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-k.closing:
			return status.Error(codes.Unavailable, "fleet: the gateway stops")
		}
	}
}

func (k *KEDA) getMetricSpec(_ context.Context, ref *scaledObjectRef) (*getMetricSpecResponse, error) {
	if _, err := k.find(ref); status.Code(err) == codes.NotFound || status.Code(err) == codes.InvalidArgument {
		return nil, err
	}
	return &getMetricSpecResponse{MetricSpecs: []*metricSpec{{MetricName: kedaMetric, TargetSize: 1, TargetSizeFloat: 1}}}, nil
}

func (k *KEDA) getMetrics(_ context.Context, in *getMetricsRequest) (*getMetricsResponse, error) {
	r, err := k.find(in.ScaledObjectRef)
	if err != nil {
		return nil, err
	}
	n := r.Desired
	if r.DryRun {
		n = r.Current
	}
	name := in.MetricName
	if name == "" {
		name = kedaMetric
	}
	return &getMetricsResponse{MetricValues: []*metricValue{{MetricName: name, MetricValue: int64(n), MetricValueFloat: float64(n)}}}, nil
}
