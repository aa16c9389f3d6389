package fleet

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/longpole/longpole/internal/scale"
)

const orders = `{"name": "deploy", "namespace": "shop", "scalerMetadata": {"workload": "orders", "scalerAddress": "longpole:9902"}}`

func TestKEDAReadsTheDesiredReplicas(t *testing.T) {
	b := &Board{}
	b.Set(scale.Recommendation{Name: "orders", At: time.Now(), Current: 4, Desired: 7, Active: true})
	b.Set(scale.Recommendation{Name: "dry", At: time.Now(), Current: 4, Desired: 7, DryRun: true})
	c := newClient(t, b)
	for _, q := range []struct{ method, in, json, out, want string }{
		{"IsActive", "ScaledObjectRef", orders, "IsActiveResponse", `{"result":true}`},
		{"IsActive", "ScaledObjectRef", `{"name": "dry"}`, "IsActiveResponse", `{"result":true}`},
		{"GetMetricSpec", "ScaledObjectRef", orders, "GetMetricSpecResponse", `{"metricSpecs":[{"metricName":"longpole_desired_replicas","targetSize":"1","targetSizeFloat":1}]}`},
		{"GetMetrics", "GetMetricsRequest", `{"scaledObjectRef": ` + orders + `, "metricName": "s0-longpole_desired_replicas"}`, "GetMetricsResponse", `{"metricValues":[{"metricName":"s0-longpole_desired_replicas","metricValue":"7","metricValueFloat":7}]}`},
		{"GetMetrics", "GetMetricsRequest", `{"scaledObjectRef": {"name": "dry"}}`, "GetMetricsResponse", `{"metricValues":[{"metricName":"longpole_desired_replicas","metricValue":"4","metricValueFloat":4}]}`},
	} {
		if got, err := c.call(q.method, q.in, q.json, q.out); err != nil || got != q.want {
			t.Errorf("%s %s: %s %v\nwant %s", q.method, q.json, got, err, q.want)
		}
	}
}

func TestKEDAIsToldWhatIsWrong(t *testing.T) {
	c := newClient(t, &Board{})
	for _, q := range []struct {
		method, in, json, out string
		want                  codes.Code
	}{
		{"IsActive", "ScaledObjectRef", orders, "IsActiveResponse", codes.NotFound},
		{"GetMetricSpec", "ScaledObjectRef", `{}`, "GetMetricSpecResponse", codes.NotFound},
		{"GetMetrics", "GetMetricsRequest", `{}`, "GetMetricsResponse", codes.InvalidArgument},
		{"StreamMetricSpec", "ScaledObjectRef", orders, "GetMetricSpecResponse", codes.Unimplemented},
	} {
		if _, err := c.call(q.method, q.in, q.json, q.out); status.Code(err) != q.want {
			t.Errorf("%s %s: %v, want %v", q.method, q.json, err, q.want)
		}
	}
}

func TestAnOldRecommendationIsNotActedUpon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Board{}
		b.Set(scale.Recommendation{Name: "deploy", At: time.Now(), Desired: 7})
		c := newClient(t, b)
		time.Sleep(staleAfter)
		if _, err := c.call("GetMetrics", "GetMetricsRequest", `{"scaledObjectRef": {"name": "deploy"}}`, "GetMetricsResponse"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if _, err := c.call("GetMetrics", "GetMetricsRequest", `{"scaledObjectRef": {"name": "deploy"}}`, "GetMetricsResponse"); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want %v", err, codes.Unavailable)
		}
	})
}

func TestStreamIsActivePushesChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Board{}
		c := newClient(t, b)
		next := c.stream(t.Context(), orders)
		set := func(active bool, desired int) {
			b.Set(scale.Recommendation{Name: "orders", At: time.Now(), Active: active, Desired: desired})
			synctest.Wait()
		}
		want := func(want string) {
			t.Helper()
			if got, err := next(); err != nil || got != want {
				t.Fatalf("%s %v, want %s", got, err, want)
			}
		}
		set(false, 1) // the first is sent as soon as there is one
		want(`{}`)
		set(false, 2) // no change
		set(true, 2)
		want(`{"result":true}`)
		set(true, 3)
		set(false, 1)
		want(`{}`)
		c.keda.Close()
		if _, err := next(); status.Code(err) != codes.Unavailable {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestStreamEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Board{}
		b.Set(scale.Recommendation{Name: "orders", At: time.Now()})
		c := newClient(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		next := c.stream(ctx, orders)
		if _, err := next(); err != nil {
			t.Fatal(err)
		}
		if n := c.keda.streams.Load(); n != 1 {
			t.Errorf("%d streams", n)
		}
		cancel()
		synctest.Wait()
		if n := c.keda.streams.Load(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Board{}
		b.Set(scale.Recommendation{Name: "orders", At: time.Now()})
		c := newClient(t, b)
		c.keda.streams.Store(maxStreams)
		if _, err := c.stream(t.Context(), orders)(); status.Code(err) != codes.ResourceExhausted {
			t.Error(err)
		}
	})
}

func TestBoardAnswersWithJSON(t *testing.T) {
	b := &Board{}
	b.Set(scale.Recommendation{Name: "z", Desired: 2})
	b.Set(scale.Recommendation{Name: "a", Desired: 3, Reason: "3 replicas"})
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var got []scale.Recommendation
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got) != 2 || got[0].Name != "a" || got[0].Desired != 3 || got[1].Name != "z" {
		t.Errorf("%v %s", err, w.Body)
	}
	w = httptest.NewRecorder()
	(&Board{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Body.String() != "[]\n" {
		t.Errorf("empty: %q", w.Body)
	}
}
