// Package rca scores the comparison of suspect with healthy traces against labelled faults: how often the faulty
// service stands first, among the first three and the first five, and whether its class is right.
//
// A corpus is a folder of trace files and a file labels.jsonl, with one JSON object a line for each fault that was injected:
//
//	{"suspect": "slow.json.gz", "baseline": ["monday.json.gz", "tuesday/"], "service": "cart", "fault": "cpu_contention"}
//
// Its fields, of which suspect, baseline and one of service and services are needed:
//
//	suspect   a path, or a list of them: traces under the fault; relative to the corpus, in any format that can be read
//	baseline  a path, or a list of them: healthy traces of the same system
//	service   the culprit; "" = there was no fault, and the right answer is that nothing differs
//	services  several culprits, instead of service; an empty list is no fault
//	fault     the type of fault, by which results are grouped; "none" unless told
//	class     the class that the culprit should be given, as "cpu" or "network". Unless told it follows from the words of
//	          fault: one with cpu is "cpu", one with network, delay or loss is "network"; others are not judged by class
//	system    by which results are grouped as well; unless told, the name of the first suspect path up to its first figure
//	name      of the case; unless told, the name of the first suspect path without its extensions
//
// Other fields are left for who keeps the corpus.
//
// The package is pure: it opens no file and reads no clock. That a fault's label is one service, and that a rank is all
// that counts, is the convention of the field; it says nothing about how sure an answer was.
package rca

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode"
)

// ErrLabels is what every error of [ParseLabels] is.
var ErrLabels = errors.New("rca: bad labels")

// Case is one labelled comparison.
type Case struct {
	Name     string   `json:"name"`
	System   string   `json:"system"`
	Fault    string   `json:"fault"`
	Class    string   `json:"class,omitempty"` // "" = not judged
	Services []string `json:"services"`        // the culprits; empty, never nil, when nothing is wrong
	Suspect  []string `json:"suspect"`         // paths relative to the corpus; never empty
	Baseline []string `json:"baseline"`
}

// The bounds of a label file, beyond which it is something else.
const (
	maxCases     = 100_000
	maxLineBytes = 1 << 20
	maxFaults    = 10 // that are told
)

// ParseLabels reads cases, one JSON object a line; empty lines are skipped. It reports all faulty lines at once, at most
// ten of them, as one error of one line, which is [ErrLabels].
func ParseLabels(r io.Reader) ([]Case, error) {
	var cases []Case
	var faults []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLineBytes)
	number := 0
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(cases) == maxCases {
			return nil, fmt.Errorf("%w: line %d: more than %d cases", ErrLabels, number, maxCases)
		}
		c, err := parseCase(line)
		if err != nil {
			faults = append(faults, fmt.Sprintf("line %d: %v", number, err))
			continue
		}
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, fmt.Sprintf("line %d: %v", number+1, err))
	}
	if len(faults) == 0 && len(cases) == 0 {
		faults = []string{"no case in it"}
	}
	if more := len(faults) - maxFaults; more > 0 {
		faults = append(faults[:maxFaults], fmt.Sprintf("and %d more", more))
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrLabels, strings.Join(faults, "; "))
	}
	return cases, nil
}

// list is a JSON string, or a list of strings.
type list []string

func (l *list) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*l = list{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return errors.New("want a string or a list of strings")
	}
	*l = many
	return nil
}

func parseCase(line []byte) (Case, error) {
	var label struct {
		Name, System, Fault, Class string
		Service                    *string
		Services                   *[]string
		Suspect, Baseline          list
	}
	if err := json.Unmarshal(line, &label); err != nil {
		return Case{}, err
	}
	c := Case{
		Name: label.Name, System: label.System, Fault: label.Fault, Class: label.Class,
		Suspect: label.Suspect, Baseline: label.Baseline, Services: []string{},
	}
	for _, p := range []struct {
		field string
		paths []string
	}{{"suspect", c.Suspect}, {"baseline", c.Baseline}} {
		if len(p.paths) == 0 || slices.Contains(p.paths, "") {
			return c, fmt.Errorf("%s: want a path, or a list of paths", p.field)
		}
	}
	switch {
	case label.Service != nil && label.Services != nil:
		return c, errors.New("service, services: want one of them")
	case label.Service != nil && *label.Service != "":
		c.Services = []string{*label.Service}
	case label.Services != nil:
		c.Services = append(c.Services, *label.Services...)
	case label.Service == nil:
		return c, errors.New(`service: want the culprit, or "" where there is none`)
	}
	if slices.Contains(c.Services, "") {
		return c, errors.New("services: want names, got an empty one")
	}
	slices.Sort(c.Services)
	c.Services = slices.Compact(c.Services)
	c.complete()
	return c, nil
}

// complete fills in what the label leaves to be derived.
func (c *Case) complete() {
	base := path.Base(c.Suspect[0])
	if c.Name == "" {
		c.Name = base
		if at := strings.IndexByte(base, '.'); at > 0 {
			c.Name = base[:at]
		}
	}
	if c.System == "" {
		c.System = strings.TrimRightFunc(base[:lead(base)], func(r rune) bool { return !unicode.IsLetter(r) })
	}
	if c.System == "" {
		c.System = "all"
	}
	if c.Fault == "" {
		c.Fault = "none"
	}
	if c.Class == "" {
		c.Class = classOf(c.Fault)
	}
}

// lead is how much of name stands before its first figure or extension.
func lead(name string) int {
	if at := strings.IndexFunc(name, func(r rune) bool { return unicode.IsDigit(r) || r == '.' }); at >= 0 {
		return at
	}
	return len(name)
}

// classOf is the class that a type of fault speaks of, or "".
func classOf(fault string) string {
	for word := range strings.FieldsFuncSeq(strings.ToLower(fault), func(r rune) bool { return !unicode.IsLetter(r) }) {
		switch word {
		case "cpu":
			return "cpu"
		case "network", "delay", "loss":
			return "network"
		}
	}
	return ""
}
