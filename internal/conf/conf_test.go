package conf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longpole/longpole/setting"
)

type inner struct {
	Off   bool          `yaml:"off"`
	Tries int           `yaml:"tries"`
	Ratio float64       `yaml:"ratio"`
	Pause time.Duration `yaml:"pause"`
}

type address struct {
	Host string `yaml:"host"`
	Port int    `yaml:"port"`
}

func (a *address) UnmarshalText(b []byte) error {
	host, port, ok := strings.Cut(string(b), ":")
	if !ok {
		return errors.New("want host:port")
	}
	a.Host = host
	_, err := fmt.Sscan(port, &a.Port)
	return err
}

type outer struct {
	Name   string            `yaml:"name"`
	Size   int64             `yaml:"size"`
	Wait   time.Duration     `yaml:"wait"`
	Part   *inner            `yaml:"part"`
	List   []inner           `yaml:"list"`
	Names  []string          `yaml:"names"`
	Parts  map[string]inner  `yaml:"parts"`
	Labels map[string]string `yaml:"labels"`
	Listen []address         `yaml:"listen"`
	hidden int               //nolint:unused // an unexported field must stay out of reach
}

func TestDecodeReadsTheUnitsOfEachType(t *testing.T) {
	const file = `
# a comment
name: "a: b"
size: 64KiB
wait: 1m30s
part: {ratio: 5%, pause: 250ms}
list:
- tries: 3
  off: true
- {}
names: one
parts:
  a.b: {tries: 1}
  c:
    pause: 0
labels: {x: '1', y: "true"}
listen: [localhost:80, {host: h, port: 1}]
`
	want := outer{
		Name: "a: b", Size: 64 << 10, Wait: 90 * time.Second, Part: &inner{Ratio: 0.05, Pause: 250 * time.Millisecond},
		List: []inner{{Tries: 3, Off: true}, {}}, Names: []string{"one"}, Parts: map[string]inner{"a.b": {Tries: 1}, "c": {}},
		Labels: map[string]string{"x": "1", "y": "true"}, Listen: []address{{"localhost", 80}, {"h", 1}},
	}
	var got outer
	if err := Decode("f", []byte(file), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(outer{})); d != "" {
		t.Fatal(d)
	}
}

func TestAColonWithoutSpaceIsPartOfAnItem(t *testing.T) {
	type named struct {
		Parts map[string]outer `yaml:"parts"`
	}
	for _, list := range []string{"[http://a:1, http://b:2/x, c:d:e]", "[ http://a:1,http://b:2/x,  c:d:e ]", `["http://a:1", 'http://b:2/x', c:d:e]`} {
		var got named
		if err := Decode("f", []byte("parts: {p: {names: "+list+", size: 1}}\n"), &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"http://a:1", "http://b:2/x", "c:d:e"}, got.Parts["p"].Names); d != "" {
			t.Error(d)
		}
	}
	var got named
	err := Decode("f", []byte("parts: {p: {names: [a: 1, {b:2}], list: [{tries:2}]}}\n"), &got)
	want := "f:1:21: parts.p.names[0]: a mapping is not allowed; want a text; quote it if it is one\n" +
		"f:1:27: parts.p.names[1]: a mapping is not allowed; want a text; quote it if it is one"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestDecodeReadsJSON(t *testing.T) {
	for _, file := range []string{
		`{"name":"a\"\u00e9\/b","size":4096,"part":{"ratio":0.5,"pause":"1s"},"names":["x","y"],"list":[{"off":true}]}`,
		"{\n\t\"name\": \"a\\\"é/b\",\n\t\"size\": 4096,\n\t\"part\": {\n\t\t\"ratio\": 0.5,\n\t\t\"pause\": \"1s\"\n\t},\n\t\"names\": [\n\t\t\"x\",\n\t\t\"y\"\n\t],\n\t\"list\": [{\"off\": true}],\n\t\"parts\": null\n}\n",
	} {
		var got outer
		if err := Decode("f", []byte(file), &got); err != nil {
			t.Fatal(err)
		}
		want := outer{Name: `a"é/b`, Size: 4096, Part: &inner{Ratio: 0.5, Pause: time.Second}, Names: []string{"x", "y"}, List: []inner{{Off: true}}}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(outer{})); d != "" {
			t.Fatal(d)
		}
	}
}

func TestDecodeReportsEveryFaultWithItsPlace(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"several", `name: [a]
size: 12 apples
wait: 250
part:
  tires: 3
  pause: fast
list:
  - tries: 1.5
    off: 1
  - ratio: many
`, `f:1:7: name: a list is not allowed; want a text; quote it if it is one
f:2:7: size: "12 apples" is not allowed; want a size such as 64KiB
f:3:7: wait: 250 is not allowed; want a duration such as 250ms
f:5:3: part.tires: unknown field; did you mean "tries"?
f:6:10: part.pause: "fast" is not allowed; want a duration such as 250ms
f:8:12: list[0].tries: 1.5 is not allowed; want an integer
f:9:10: list[0].off: 1 is not allowed; want true or false
f:10:12: list[1].ratio: "many" is not allowed; want a number or a share such as 5%`},
		{"unknown and far", "colour: red\n", `f:1:1: colour: unknown field; known here are labels, list, listen, name, names, part, parts, size, wait`},
		{"duplicate", "name: a\nsize: 1\nname: b\nparts: {x: {}, x: {}}\n", `f:3:1: name: duplicate key; it stands in line 1 already
f:4:16: parts.x: duplicate key; it stands in line 4 already`},
		{"empty part", "part:\nname: x\n", `f:1:6: part: has no value; want {} for its defaults, or leave it out`},
		{"scalar for a mapping", "part: 5\nparts: [1]\nlist: x\n", `f:1:7: part: 5 is not allowed; want a mapping
f:2:8: parts: a list is not allowed; want a mapping of names
f:3:7: list: "x" is not allowed; want a mapping`},
		{"number for a text", "name: 12\nnames: [a, 2]\n", `f:1:7: name: 12 is not allowed; want a text; quote it if it is one
f:2:12: names[1]: 2 is not allowed; want a text; quote it if it is one`},
		{"text that reads itself", "listen: nowhere\n", `f:1:9: listen: "nowhere" is not allowed: want host:port`},
		{"whole is a list", "- a\n", `f:1:1: a list is not allowed; want a mapping`},
		{"alias", "part: &a {tries: 1}\nlist: [*a]\n", `f:1:7: an anchor (&) is not allowed; write the value out
f:2:8: an alias (*) is not allowed; write the value out, or quote it`},
		{"tag", "name: !!str 5\n", `f:1:7: a tag (!) is not allowed; quote the value`},
		{"two documents", "name: a\n---\nname: b\n", `f:3:5: a second document; want one`},
		{"overflow", "size: 9999999999GiB\n", `f:1:7: size: "9999999999GiB" is not allowed; want a size such as 64KiB`},
		{"not utf-8", "name: \xff\n", `f: is not UTF-8 text`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := outer{Name: "before"}
			err := Decode("f", []byte(tt.file), &got)
			if err == nil {
				t.Fatal("no fault found")
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Fatal(d)
			}
			if got.Name != "before" {
				t.Error("a faulty file changed the settings")
			}
		})
	}
}

func TestSyntaxErrorHasItsLine(t *testing.T) {
	for file, line := range map[string]int{
		"name: a\npart: {tries: 1\n":   2,
		"name: a\n  size: 1\n":         1, // one text over two lines, as YAML reads it
		"name: 'a\n":                   1,
		"a: b\nlist:\n\t- tries: 1\n":  3,
		"{\"name\": \"x\", \"size\":}": 0,
	} {
		err := Decode("f", []byte(file), &outer{})
		var e *Error
		if line == 0 {
			continue
		}
		if !errors.As(err, &e) || e.Line != line {
			t.Errorf("%q: got %v; want a fault in line %d", file, err, line)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	n := len(setting.List(Decode("f", []byte(b.String()), &outer{})))
	if n != maxFaults+1 {
		t.Fatalf("got %d faults; want %d and a count of the rest", n, maxFaults)
	}
}

func TestDeepAndBigInputIsRefused(t *testing.T) {
	deep := 100_000
	for name, file := range map[string]string{
		"flow lists":    strings.Repeat("[", deep),
		"flow mappings": strings.Repeat("{a: ", deep),
		"block lists":   strings.Repeat("- ", deep) + "x",
		"complex keys":  strings.Repeat("? ", deep) + "x",
		"mixed":         strings.Repeat("- [", deep),
		"many fields":   strings.Repeat("a: b\n", deep),
		"big":           strings.Repeat("#", MaxBytes+1),
	} {
		if err := Decode("f", []byte(file), &outer{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var block strings.Builder
	for i := range 1000 {
		block.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	if err := Decode("f", []byte(block.String()), &outer{}); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("block mappings: got %v", err)
	}
}

func TestEmptyFileIsNoFault(t *testing.T) {
	for _, file := range []string{"", "\n", "# only a comment\n", "---\n", "{}"} {
		got := outer{Name: "kept"}
		if err := Decode("f", []byte(file), &got); err != nil || got.Name != "kept" {
			t.Errorf("%q: %v, %+v", file, err, got)
		}
	}
}

func TestLocateFindsTheFieldOrWhatIsNearest(t *testing.T) {
	const file = `name: x
part:
  tries: 99
list:
  - tries: 1
  - pause: 1s
    ratio: 2
parts:
  a.b:
    tries: 3
names: single
`
	tests := []struct {
		path         string
		line, column int
	}{
		{"name", 1, 7},
		{"part", 2, 1},
		{"part.tries", 3, 10},
		{"part.pause", 2, 1}, // absent: the part around it
		{"list[1].ratio", 7, 12},
		{"list[1].tries", 6, 5},
		{"list[1]", 6, 5},
		{"list[7].tries", 4, 1},
		{"parts.a.b.tries", 10, 12},
		{"parts.a.b.off", 9, 3},
		{"names[0]", 11, 8},
		{"nowhere.at.all", 1, 1},
		{"", 1, 1},
	}
	for _, tt := range tests {
		err := Locate("f", []byte(file), &setting.Error{Path: tt.path, Value: 1, Want: "2"})
		var e *Error
		if !errors.As(err, &e) || e.Line != tt.line || e.Column != tt.column {
			t.Errorf("%q: got %v; want %d:%d", tt.path, err, tt.line, tt.column)
		}
	}
	if Locate("f", nil, nil) != nil {
		t.Error("no fault became one")
	}
	joined := errors.Join(errors.New("plain"), &setting.Error{Path: "part.tries", Value: 99, Want: "1..10"}, &setting.Error{Path: "name", Value: "x", Want: "y"})
	want := "f: plain\nf:1:7: name: \"x\" is not allowed; want y\nf:3:10: part.tries: 99 is not allowed; want 1..10"
	if got := Locate("f", []byte(file), joined).Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMarshalKeepsWhatDecodeReads(t *testing.T) {
	in := outer{
		Name: "yes: no", Size: 3 << 20, Wait: time.Minute, Part: &inner{}, List: []inner{{Ratio: 0.1, Tries: 2}},
		Names: []string{"a", "5", "true"}, Parts: map[string]inner{"z": {Off: true}, "a": {Pause: 1500 * time.Microsecond}},
	}
	yml, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const wantYAML = `name: "yes: no"
size: 3MiB
wait: 1m
part: {}
list:
  - tries: 2
    ratio: 0.1
names:
  - a
  - "5"
  - "true"
parts:
  a:
    pause: 1.5ms
  z:
    "off": true
`
	if d := cmp.Diff(wantYAML, strings.ReplaceAll(string(yml), "'", `"`)); d != "" {
		t.Error(d)
	}
	js, err := MarshalJSON(&in)
	if err != nil {
		t.Fatal(err)
	}
	const wantJSON = `{"name":"yes: no","size":"3MiB","wait":"1m","part":{},"list":[{"tries":2,"ratio":0.1}],"names":["a","5","true"],"parts":{"a":{"pause":"1.5ms"},"z":{"off":true}}}`
	if string(js) != wantJSON {
		t.Errorf("got %s\nwant %s", js, wantJSON)
	}
	for _, text := range [][]byte{yml, js} {
		var out outer
		if err := Decode("f", text, &out); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, out, cmp.AllowUnexported(outer{})); d != "" {
			t.Error(d)
		}
	}
}

func TestUnitsSurviveTheRoundTrip(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Microsecond, time.Hour, 90 * time.Minute, time.Hour + time.Second, -time.Minute} {
		if got, ok := parseDuration(formatDuration(d), true); !ok || got != d {
			t.Errorf("%v became %v", d, got)
		}
	}
	for _, n := range []int64{0, 1, 1023, 1024, 1 << 20, 1<<20 + 1024, 1 << 40, -2048} {
		if got, ok := parseSize(formatSize(n), true); !ok || got != n {
			t.Errorf("%d became %d", n, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"name: a\npart: {tries: 1}\n", "list:\n- tries: 1\n", `{"a":[1,2,{"b":null}]}`, "&a [*a]", "? x\n: y\n", "a: |\n b\n", "- - - x", "\t", "%YAML 1.2\n---\n", "a: 'b", "listen: x:1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v outer
		if err := Decode("f", data, &v); err != nil {
			for _, e := range setting.List(err) {
				if _, ok := errors.AsType[*Error](e); !ok {
					t.Fatalf("a fault without a place: %v", e)
				}
			}
			return
		}
		text, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var again outer
		if err := Decode("f", text, &again); err != nil {
			t.Fatalf("cannot read back %q: %v", text, err)
		}
		_ = Locate("f", data, &setting.Error{Path: "list[0].tries"})
	})
}
