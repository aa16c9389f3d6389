package diagnose

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/internal/trace"
)

func TestCriticalTimeAddsUpByPlace(t *testing.T) {
	one, err := trace.Parse(`GET 0ms 100ms service=shop kind=server host=shop-1
  call 10ms 60ms kind=client service=shop server.address=10.0.0.1 server.port=80
    get 20ms 50ms service=stock kind=server host=stock-1
      db 25ms 45ms kind=client service=stock db.system=postgresql server.address=pg server.port=5432
  call 70ms 90ms kind=client service=shop server.address=10.0.0.1 server.port=80
`)
	if err != nil {
		t.Fatal(err)
	}
	tree := Build(one, ClockOptions{})
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	want := []Critical{
		{trace.SegService, "shop", "shop-1", ms(30)},
		{trace.SegNetwork, "stock", "10.0.0.1:80", ms(20)},
		{trace.SegService, "stock", "stock-1", ms(10)},
		{trace.SegDatabase, "stock", "pg:5432", ms(20)},
		{trace.SegDownstream, "10.0.0.1", "10.0.0.1:80", ms(20)},
	}
	got := tree.Critical(tree.Roots[0])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	sum := time.Duration(0)
	for _, c := range got {
		sum += c.Time
	}
	if sum != ms(100) {
		t.Errorf("the parts are %v together, the trace %v", sum, ms(100))
	}
}
