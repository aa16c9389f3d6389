package interop_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/longpole/longpole/internal/slo/interop"
)

func TestDashboardsAreWhatGrafanaReads(t *testing.T) {
	made, err := interop.Dashboards(objectives(), interop.DashboardOptions{Routes: []string{"orders", `a,b\c`}})
	if err != nil || len(made) != 2 {
		t.Fatal(len(made), err)
	}
	for _, file := range made {
		var d struct {
			UID        string
			Panels     []map[string]any
			Templating struct{ List []map[string]any }
		}
		if err := json.Unmarshal(file.JSON, &d); err != nil || d.UID != file.Name || len(d.UID) > 40 {
			t.Errorf("%s: %q %v", file.Name, d.UID, err)
		}
		type place struct{ x, y float64 }
		ids, places := map[any]bool{}, map[place]bool{}
		for _, p := range d.Panels {
			pos := p["gridPos"].(map[string]any)
			at := place{pos["x"].(float64), pos["y"].(float64)}
			if ids[p["id"]] || places[at] || p["title"] == "" || len(p["targets"].([]any)) == 0 {
				t.Errorf("%s: panel %v %v: id or place taken, or nothing to show", file.Name, p["id"], p["title"])
			}
			ids[p["id"]], places[at] = true, true
		}
		if v := d.Templating.List[0]; v["type"] != "datasource" || v["query"] != "prometheus" {
			t.Errorf("%s: %v", file.Name, v)
		}
	}
	if routes := string(made[0].JSON); !strings.Contains(routes, `"query": "orders,a\\,b\\\\c"`) {
		t.Error("routes are not those that were given")
	}
	if made, err := interop.Dashboards(nil, interop.DashboardOptions{}); err != nil || len(made) != 1 || !strings.Contains(string(made[0].JSON), "label_values(longpole_calls_total, route)") {
		t.Error("without objectives there is one dashboard, for all routes", err)
	}
}
