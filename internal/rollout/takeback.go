package rollout

import (
	"reflect"

	"github.com/longpole/longpole"
)

// takenBack is the policy now without one change: every setting that the change made has the value again that it had before.
// ok is false when a setting that it made has another value now, so that there is nothing to take back alone. The result
// shares what it can with now and from: none of them may be changed.
func takenBack(now longpole.Config, change longpole.Change) (without longpole.Config, ok bool) {
	v, ok := unmade(reflect.ValueOf(now.Safe()), reflect.ValueOf(change.From.Safe()), reflect.ValueOf(change.To.Safe()))
	if !ok {
		return longpole.Config{}, false
	}
	return v.Interface().(longpole.Config), true
}

// unmade is a three-way merge: now, with from in the place of to wherever the two differ. A part that is off on one side is a
// setting as a whole, and so are lists and maps.
func unmade(now, from, to reflect.Value) (reflect.Value, bool) {
	same := func(a, b reflect.Value) bool { return reflect.DeepEqual(a.Interface(), b.Interface()) }
	switch {
	case same(from, to):
		return now, true
	case same(now, to):
		return from, true
	case now.Kind() == reflect.Pointer && !now.IsNil() && !from.IsNil() && !to.IsNil():
		inner, ok := unmade(now.Elem(), from.Elem(), to.Elem())
		if !ok {
			return now, false
		}
		p := reflect.New(inner.Type())
		p.Elem().Set(inner)
		return p, true
	case now.Kind() == reflect.Struct:
		return unmadeFields(now, from, to)
	}
	return now, false
}

func unmadeFields(now, from, to reflect.Value) (reflect.Value, bool) {
	next := reflect.New(now.Type()).Elem()
	next.Set(now)
	for i := range now.NumField() {
		if !now.Type().Field(i).IsExported() {
			return now, false // nobody can set it alone
		}
		field, ok := unmade(now.Field(i), from.Field(i), to.Field(i))
		if !ok {
			return now, false
		}
		next.Field(i).Set(field)
	}
	return next, true
}
