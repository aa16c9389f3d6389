package httppolicy

import (
	"net/http"
	"testing"

	"github.com/longpole/longpole/call"
)

func TestThePriorityOfASenderIsReadOnlyWhereOneAsksForIt(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	SetPriority(r.Header, call.Critical, 17)
	if p, cohort, ok := Priority(r.Header); p != call.Critical || cohort != 17 || !ok {
		t.Errorf("got %v %d %v", p, cohort, ok)
	}
	if info := Info(r); info.Priority != call.Normal || info.Cohort != 0 {
		t.Errorf("Info believes %+v", info)
	}
	if info := Forwarded(r); info.Priority != call.Critical || info.Cohort != 17 {
		t.Errorf("Forwarded gives %+v", info)
	}
	r.Header.Set(HeaderPriority, "urgent")
	if info := Forwarded(r); info.Priority != call.Normal {
		t.Errorf("what cannot be read gives %+v", info)
	}
	r.Header.Del(HeaderPriority)
	if _, _, ok := Priority(r.Header); ok {
		t.Error("nothing was said")
	}
}
