package setting

import (
	"errors"
	"fmt"
	"testing"
)

func TestNoFaultIsNoError(t *testing.T) {
	var f Faults
	f.Check(true, "a", 1, "1")
	f.Within("b", nil)
	if err := f.Err(); err != nil || List(err) != nil {
		t.Error(err)
	}
}

func TestAllFaultsKeepTheirPlace(t *testing.T) {
	var inner Faults
	inner.Check(false, "max", 11, "1..10")
	inner.Check(false, "", "x", "a list")
	inner.Check(false, "[2].name", "", "a name")
	other := errors.New("not a setting")

	var f Faults
	f.Check(false, "first", -1, "at least 0")
	f.Within("retry", inner.Err())
	f.Within("file", errors.Join(other, fmt.Errorf("wrapped: %w", &Error{Path: "p", Value: 1, Want: "2"})))
	f.Within("", &Error{Path: "top", Value: 1, Want: "2"})

	var got []string
	for _, err := range List(f.Err()) {
		got = append(got, err.Error())
	}
	want := []string{
		"first: -1 is not allowed; want at least 0",
		"retry.max: 11 is not allowed; want 1..10",
		"retry: x is not allowed; want a list",
		"retry[2].name:  is not allowed; want a name",
		"not a setting",
		"file.p: 1 is not allowed; want 2",
		"top: 1 is not allowed; want 2",
	}
	if len(got) != len(want) {
		t.Fatal(got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %q, want %q", i, got[i], want[i])
		}
	}
	if !errors.Is(f.Err(), other) {
		t.Error("the other error was lost")
	}
}

func TestWithinDoesNotChangeTheInnerFault(t *testing.T) {
	inner := &Error{Path: "a", Value: 1, Want: "2"}
	var f Faults
	f.Within("outer", inner)
	if inner.Path != "a" {
		t.Error(inner.Path)
	}
}
