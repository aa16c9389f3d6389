package lab

import (
	"testing"

	"github.com/longpole/longpole/internal/gateway"
)

func TestCatalogueIsWhole(t *testing.T) {
	all, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Errorf("%d scenarios; want 30 and more", len(all))
	}
	healthy := 0
	for _, s := range all {
		if s.Truth.Healthy {
			healthy++
		}
		system := NewSystem(s, 1)
		if err := system.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := gateway.Load(s.Name, system.GatewayYAML("127.0.0.1:0", gateway.Off, gateway.Off)); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		system.Close()
	}
	if healthy < 2 {
		t.Errorf("%d healthy scenarios; want a plain one and one that is slow by nature", healthy)
	}
}
