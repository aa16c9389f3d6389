package diagnose

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestIDsAreNumberedAsTheyCome(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var x idTable
	for _, n := range []int{0, 1, 7, 8, 9, 3000, 5, 0, 40} { // in the memory of the trace before
		x.reset(n)
		want := map[string]int32{}
		for range n {
			id := fmt.Sprint(random.IntN(n))
			number, known := x.add(id)
			before, was := want[id]
			if known != was || was && number != before || !was && int(number) != len(want) {
				t.Fatalf("%d IDs: %s is number %d (known %v), want %d (%v)", n, id, number, known, before, was)
			}
			want[id] = number
		}
		for id, number := range want {
			if got := x.find(id); got != number {
				t.Fatalf("%d IDs: found %s at %d, want %d", n, id, got, number)
			}
		}
		if got := x.find("none"); got != -1 {
			t.Fatalf("%d IDs: found what is not there at %d", n, got)
		}
	}
	if len(x.slots) > 1024 {
		t.Errorf("%d slots are left for 40 IDs", len(x.slots))
	}
}

func TestListsOfARollDoNotMeet(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var r roll[int32]
	var lists [][]int32
	for i := range 2000 {
		list := r.cut(random.IntN(3 * rollPiece / 2))
		for k := range list {
			if list[k] != 0 {
				t.Fatalf("list %d does not begin with zeroes", i)
			}
			list[k] = int32(i + 1)
		}
		lists = append(lists, append(list, -1)) // grows into memory of its own
	}
	for i, list := range lists {
		for k, got := range list[:len(list)-1] {
			if got != int32(i+1) {
				t.Fatalf("list %d has %d at %d", i, got, k)
			}
		}
	}
	if first := new(roll[int32]).cut(5); cap(first) != 5 {
		t.Errorf("a single list of 5 takes room for %d", cap(first))
	}
}

func TestEachRouteHasBothTasksOnce(t *testing.T) {
	for routes := range 8 {
		seen := map[[2]int]int{}
		for n := range 2 * routes {
			route, rules := task(n, routes)
			kind := 0
			if rules {
				kind = 1
			}
			seen[[2]int{route, kind}]++
		}
		for route := range routes {
			if seen[[2]int{route, 0}] != 1 || seen[[2]int{route, 1}] != 1 || len(seen) != 2*routes {
				t.Errorf("%d routes: %v", routes, seen)
			}
		}
	}
}
