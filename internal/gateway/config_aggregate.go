package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/longpole/longpole"
	"github.com/longpole/longpole/batch"
	"github.com/longpole/longpole/setting"
)

// maxParts bounds the calls that one call may become.
const maxParts = 32

// The modes of an aggregate.
const (
	modeFirstError = "first_error"
	modeBestEffort = "best_effort"
)

// Aggregate answers a GET with the answers of several calls, as one JSON object that has the body of each under its name.
type Aggregate struct {
	Parts   []Part        `yaml:"parts"`   // 1..32, made at the same time
	Mode    string        `yaml:"mode"`    // first_error: one that fails fails the call. best_effort: it is null, and told of under errors; default first_error
	Timeout time.Duration `yaml:"timeout"` // of all parts together; default 10s
	Bytes   int64         `yaml:"bytes"`   // of the body of each part; up to 16MiB; default 1MiB
}

// Part is one of the calls of an Aggregate: a GET with the header fields of the client.
type Part struct {
	Name     string           `yaml:"name"`     // member of the answer; unique
	Upstream string           `yaml:"upstream"` // default that of the route
	Path     string           `yaml:"path"`     // template of path and query: /users/{segment.2}?full={query.full}
	Policy   *longpole.Config `yaml:"policy"`   // default that of the route
}

// WithDefaults fills what is zero.
func (a Aggregate) WithDefaults() Aggregate {
	setDefault(&a.Mode, modeFirstError)
	setDefault(&a.Timeout, 10*time.Second)
	setDefault(&a.Bytes, 1<<20)
	return a
}

// Validate returns every fault of a, joined; each is a *setting.Error.
func (a Aggregate) Validate() error {
	var f setting.Faults
	f.Check(len(a.Parts) >= 1 && len(a.Parts) <= maxParts, "parts", len(a.Parts), "1..32 parts")
	f.Check(a.Mode == "" || a.Mode == modeFirstError || a.Mode == modeBestEffort, "mode", a.Mode, "first_error or best_effort")
	f.Check(a.Timeout >= 0, "timeout", a.Timeout, "a duration that is not negative")
	f.Check(a.Bytes >= 0 && a.Bytes <= 16<<20, "bytes", a.Bytes, "1B..16MiB")
	names := make(map[string]bool)
	for i, p := range a.Parts {
		path := fmt.Sprintf("parts[%d]", i)
		f.Check(nameOK(p.Name) && p.Name != "errors" && !strings.ContainsAny(p.Name, "/."), path+".name", p.Name, "a name of 1..64 letters, digits and -_ characters, other than errors")
		f.Check(!names[p.Name], path+".name", p.Name, "a name that no part before it has")
		names[p.Name] = true
		t, err := parseTemplate(p.Path)
		f.Check(err == nil && !t.uses("ids"), path+".path", p.Path, "a template that starts with /, with {segment.N}, {query.NAME} and {path} in it")
		if p.Policy != nil {
			effective := p.Policy.Safe()
			f.Within(path+".policy", effective.Validate())
			f.Within(path+".policy", contradictions(effective))
		}
	}
	return f.Err()
}

func (a Aggregate) validateUpstreams(f *setting.Faults, path string, known map[string]Upstream) {
	for i, p := range a.Parts {
		_, ok := known[p.Upstream]
		f.Check(p.Upstream == "" || ok, fmt.Sprintf("%s.parts[%d].upstream", path, i), p.Upstream, "one of upstreams: "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
}

// Batch joins GETs for single things into one for many. What is joined is alike in all but the ID, carries no credentials
// and asks for no condition or range.
type Batch struct {
	batch.Config `yaml:",inline"`

	ID        string `yaml:"id"`        // where a call has its ID: query.NAME or segment.N, the segments of the path being counted from 1
	Target    string `yaml:"target"`    // template of the joint call: /items?ids={ids}
	Separator string `yaml:"separator"` // between the IDs; default ,
	Items     string `yaml:"items"`     // member of the joint answer that holds the things; "" = the answer does
	Key       string `yaml:"key"`       // member of each thing that holds its ID; "" = the things are an object by ID, not a list
	Bytes     int64  `yaml:"bytes"`     // of a joint answer; up to 64MiB; default 4MiB
}

// WithDefaults fills what is zero.
func (b Batch) WithDefaults() Batch {
	b.Config = b.Config.WithDefaults()
	setDefault(&b.Separator, ",")
	setDefault(&b.Bytes, 4<<20)
	return b
}

// Validate returns every fault of b, joined; each is a *setting.Error.
func (b Batch) Validate() error {
	var f setting.Faults
	f.Within("", b.Config.Validate())
	f.Check(b.Size <= 1000, "size", b.Size, "1..1000")
	id, err := parseTemplate("/{" + b.ID + "}")
	f.Check(err == nil && b.ID != "ids" && b.ID != "path" && len(id) == 2, "id", b.ID, "query.NAME or segment.N")
	t, err := parseTemplate(b.Target)
	f.Check(err == nil && t.uses("ids"), "target", b.Target, "a template that starts with / and has {ids} in it")
	f.Check(len(b.Separator) <= 4, "separator", b.Separator, "up to 4 characters")
	f.Check(b.Bytes >= 0 && b.Bytes <= 64<<20, "bytes", b.Bytes, "1B..64MiB")
	return f.Err()
}
