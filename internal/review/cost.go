package review

import (
	"fmt"
	"strings"
	"time"
)

// Prices turn what calls use into money. The zero value tells no money.
type Prices struct {
	Currency    string  `yaml:"currency" json:"currency,omitempty"`         // as EUR; up to 8 characters; default none is shown
	CPUHour     float64 `yaml:"cpu_hour" json:"cpu_hour,omitempty"`         // of one processor; 0 = not priced, as the others
	GiB         float64 `yaml:"gib" json:"gib,omitempty"`                   // of bodies to and from upstreams
	ReplicaHour float64 `yaml:"replica_hour" json:"replica_hour,omitempty"` // of one replica of a workload
}

// Cost is what a thousand calls of a route use.
type Cost struct {
	Route    string        `json:"route"`
	Calls    uint64        `json:"calls"`           // that it was measured over
	Attempts float64       `json:"attempts"`        // sent upstream, for a thousand calls, as what follows
	CPU      time.Duration `json:"cpu_ns"`          // 0 = not measured
	Bytes    float64       `json:"bytes"`           // 0 = not measured
	Money    float64       `json:"money,omitempty"` // of CPU and Bytes; 0 = not priced
}

// costs is the cost of every route that had enough calls.
func costs(in *Input) (list []Cost) {
	for _, r := range in.Routes {
		if r.Did.Calls < leastCalls {
			continue
		}
		per := 1000 / float64(r.Did.Calls)
		c := Cost{Route: r.Name, Calls: r.Did.Calls, Attempts: per * float64(r.Did.Attempts), CPU: time.Duration(per * float64(r.Did.CPU)), Bytes: per * float64(r.Did.Bytes)}
		c.Money = c.CPU.Hours()*in.Config.Prices.CPUHour + c.Bytes/(1<<30)*in.Config.Prices.GiB
		list = append(list, c)
	}
	return list
}

// cost finds that of a route.
func (f *Figures) cost(route string) (Cost, bool) {
	if f != nil {
		for _, c := range f.Costs {
			if c.Route == route {
				return c, true
			}
		}
	}
	return Cost{}, false
}

// part is one thing that calls use, for a thousand of them.
type part struct {
	name        string
	before, now float64
	show        func(float64) string
}

func partsOf(before, now Cost) []part {
	cpu := func(ns float64) string { return short(time.Duration(ns)) }
	return []part{
		{"attempts", before.Attempts, now.Attempts, func(v float64) string { return fmt.Sprintf("%.0f", v) }},
		{"CPU time", float64(before.CPU), float64(now.CPU), cpu},
		{"bytes", before.Bytes, now.Bytes, func(v float64) string { return sizeText(int64(v)) }},
	}
}

// money writes an amount with its currency.
func (p Prices) money(v float64) string {
	return strings.TrimSpace(digits(v) + " " + p.Currency)
}

// digits is an amount in three digits or more, never with an exponent.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.4g", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// sizeText is bytes as people read them.
func sizeText(bytes int64) string {
	const k = 1024
	v, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < k {
			break
		}
		v, unit = v/k, next
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}

// number is a count as people read it.
func number(n float64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.3g G", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.3g M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.3g k", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
