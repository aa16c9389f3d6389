package rollout

import (
	"encoding/json"
	"testing"
	"time"
)

func TestQuantilesAreMillisecondsInJSON(t *testing.T) {
	in := Quantiles{P50: 1500 * time.Microsecond, P95: 20 * time.Millisecond, P99: time.Second}
	data, err := json.Marshal(in)
	if err != nil || string(data) != `{"p50":1.5,"p95":20,"p99":1000}` {
		t.Fatalf("%s, %v", data, err)
	}
	var out Quantiles
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("back: %+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"p50":"x"}`), &out); err == nil {
		t.Error("text was taken for milliseconds")
	}
}
