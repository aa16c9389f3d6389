package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/longpole/longpole/internal/trace"
)

// keyed is a span of that name with those keys.
func keyed(name string, keys ...string) trace.Span {
	s := trace.Span{TraceID: "00000000000000000000000000000001", ID: "0000000000000001", Service: "shop", Name: name, Start: 1, End: 2}
	for _, k := range keys {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: k, Value: "v"})
	}
	return s
}

// checkKeys fails when what s says of its keys is not true.
func checkKeys(t testing.TB, s *trace.Span) {
	t.Helper()
	if keys := s.Keys(); keys != nil && !keys.Fits(slices.Collect(s.All())) {
		t.Fatalf("keys %q of the attributes %v", keys.List, slices.Collect(s.All()))
	}
}

func TestSpansOfOneNameShareTheAttributesThatDoNotChange(t *testing.T) {
	list := make([]trace.Span, 6)
	for i := range list {
		list[i] = keyed("GET /", "a", "b", "c")
		list[i].Attributes[1].Value = strconv.Itoa(i)
		if i == 5 {
			list[i].Attributes[2].Value = "x"
		}
	}
	var got []trace.Span
	d := newDecoder(func(s trace.Span) { got = append(got, s) })
	if err := d.otlp(EncodeOTLP(list)); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 5; i++ {
		if s := &got[i]; s.Shared == nil || s.Shared != got[1].Shared || s.Keys() == nil || len(s.Attributes) != 1 {
			t.Errorf("span %d has %v of its own, and shares %p", i, s.Attributes, s.Shared)
		}
	}
	if s := &got[5]; s.Shared == got[4].Shared || s.Keys() != got[4].Keys() || len(s.Attributes) != 2 {
		t.Errorf("the last span has %v of its own, and shares %p", s.Attributes, s.Shared)
	}
	for i := range got {
		if all := slices.Collect(got[i].All()); !slices.Equal(all[:3], list[i].Attributes) || all[3].Key != "service.name" {
			t.Errorf("span %d has %v, want %v", i, all, list[i].Attributes)
		}
	}
}

// What a span shares is its own, whatever else is decoded between the spans of its name: spans that are left out, other keys, attributes
// in front of the name.
func TestSharedAttributesAreThoseOfTheSpan(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	d := newDecoder(nil)
	for range 300 {
		var want [][]trace.Attribute
		message := &tracepb.ResourceSpans{Resource: &resourcepb.Resource{}, ScopeSpans: []*tracepb.ScopeSpans{{}}}
		for k := range random.IntN(3) {
			message.Resource.Attributes = append(message.Resource.Attributes, pair(fmt.Sprint("k", 3*k), text("resource")))
		}
		var raw []byte
		for range 20 {
			var attributes []byte
			var list []trace.Attribute
			for k := range random.IntN(5) + random.IntN(2)*random.IntN(20) {
				a := trace.Attribute{Key: fmt.Sprint("k", k+random.IntN(9)/8), Value: fmt.Sprint(random.IntN(5) / 4)}
				if slices.ContainsFunc(list, func(b trace.Attribute) bool { return a.Key == b.Key }) {
					continue
				}
				list = append(list, a)
				one, _ := proto.Marshal(&tracepb.Span{Attributes: []*commonpb.KeyValue{pair(a.Key, text(a.Value))}})
				attributes = append(attributes, one...)
			}
			span := &tracepb.Span{TraceId: bytes.Repeat([]byte{1}, 16), SpanId: bytes.Repeat([]byte{2}, 8), StartTimeUnixNano: 1, EndTimeUnixNano: 2}
			if random.IntN(5) == 0 {
				span.SpanId = nil // it is left out
			}
			head, _ := proto.Marshal(span)
			name, _ := proto.Marshal(&tracepb.Span{Name: fmt.Sprint("op", random.IntN(2))})
			parts := [][]byte{head, name, attributes}
			if random.IntN(5) == 0 {
				random.Shuffle(len(parts), func(i, k int) { parts[i], parts[k] = parts[k], parts[i] })
			}
			raw = protowire.AppendTag(raw, 2, protowire.BytesType)
			raw = protowire.AppendBytes(raw, slices.Concat(parts...))
			if span.SpanId == nil {
				continue
			}
			for _, a := range message.Resource.Attributes {
				if !slices.ContainsFunc(list, func(b trace.Attribute) bool { return a.Key == b.Key }) {
					list = append(list, trace.Attribute{Key: a.Key, Value: "resource"})
				}
			}
			want = append(want, list)
		}
		message.ScopeSpans = nil
		outer, _ := proto.Marshal(message)
		outer = protowire.AppendBytes(protowire.AppendTag(outer, 2, protowire.BytesType), raw)
		var got [][]trace.Attribute
		d.emit = func(s trace.Span) {
			checkKeys(t, &s)
			got = append(got, slices.Collect(s.All()))
		}
		if err := d.otlp(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), outer)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	}
}

// However spans differ from those before, and however many lists of keys there are, what a span says of its keys is true.
func TestKeysAreThoseOfTheAttributes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	shared := 0
	d := newDecoder(func(s trace.Span) {
		if s.Keys() != nil {
			shared++
		}
		checkKeys(t, &s)
	})
	for i := range 3 * mostKeys {
		s := keyed(fmt.Sprint("op", random.IntN(4)))
		for k := range random.IntN(3) * random.IntN(10) {
			s.Attributes = append(s.Attributes, trace.Attribute{Key: fmt.Sprint("k", k+random.IntN(2)), Value: "v"})
		}
		if random.IntN(3) == 0 {
			s.Attributes = append(s.Attributes, trace.Attribute{Key: fmt.Sprint("new", i), Value: "v"})
		}
		s.Host = []string{"", "node"}[random.IntN(2)] // one key of the resource more
		twice := []trace.Span{s, s}
		if err := d.otlp(EncodeOTLP(twice)); err != nil {
			t.Fatal(err)
		}
	}
	if shared == 0 || d.made != mostKeys {
		t.Errorf("%d spans with keys, %d lists", shared, d.made)
	}
}

func TestTracesThatAreKeptShareAttributesInMemoryOfTheirOwn(t *testing.T) {
	list := make([]trace.Span, 9)
	for i := range list {
		list[i] = keyed("GET /", "a", "b")
		list[i].Attributes[1].Value = strconv.Itoa(i)
	}
	var got []trace.Span
	d := newDecoder(func(s trace.Span) { got = append(got, s) })
	if err := d.otlp(EncodeOTLP(list)); err != nil {
		t.Fatal(err)
	}
	var c compactor
	one := &assembly{Trace: trace.Trace{Spans: slices.Clone(got[:5])}}
	two := &assembly{Trace: trace.Trace{Spans: slices.Clone(got[5:])}}
	c.own(one)
	c.own(two)
	kept := slices.Concat(one.Spans, two.Spans)
	for i := range kept {
		if !slices.Equal(slices.Collect(kept[i].All()), slices.Collect(got[i].All())) {
			t.Errorf("span %d has %v, had %v", i, slices.Collect(kept[i].All()), slices.Collect(got[i].All()))
		}
		if i > 1 && (kept[i].Shared == got[i].Shared || kept[i].Shared != kept[2].Shared) {
			t.Errorf("span %d shares %p, shared %p", i, kept[i].Shared, got[i].Shared)
		}
	}
	for range 2 * maxRepacked {
		c.repack(trace.Share(nil, 0, nil))
	}
	if len(c.shared) > maxRepacked {
		t.Errorf("%d lists of attributes are remembered", len(c.shared))
	}
}
