package evidence

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RedisInfo is INFO by name, as the server writes it.
type RedisInfo map[string]string

// ParseRedisInfo reads the answer of INFO; at most 10,000 lines.
func ParseRedisInfo(s string) RedisInfo {
	out := RedisInfo{}
	for line := range strings.Lines(s) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok && len(out) < 10_000 && !strings.HasPrefix(key, "#") {
			out[key] = value
		}
	}
	return out
}

// Num is a figure of INFO; 0 when it is not there.
func (r RedisInfo) Num(name string) float64 { return num(strings.TrimSuffix(r[name], "%")) }

// RedisLook is one look at a Redis server.
type RedisLook struct {
	At      time.Time      // by our clock
	Info    RedisInfo      // of the sections that were asked for
	Slow    []SlowCommand  // newest first
	Latency []LatencyEvent // needs latency-monitor-threshold
	RTT     time.Duration  // of a PING
	Gaps    []Gap
}

// SlowCommand is an entry of SLOWLOG. Arguments are left out but the command and a key's shape, so that no user data are kept.
type SlowCommand struct {
	ID      int64         `json:"id"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"` // in the server, without waiting for its turn and the network
	Command string        `json:"command"` // "hgetall"
	Key     string        `json:"key"`     // the first argument with each run of digits as #: "user:#:cart"
	Args    int           `json:"args"`    // with the command; Redis counts at most 32
	Client  string        `json:"client,omitempty"`
}

// LatencyEvent is an entry of LATENCY LATEST.
type LatencyEvent struct {
	Event  string        `json:"event"` // command, fork, aof-fsync-always, expire-cycle …
	At     time.Time     `json:"at"`
	Latest time.Duration `json:"latest_ns"`
	Max    time.Duration `json:"max_ns"` // since the last reset
}

// KeyShape is a key with each run of digits and each long hexadecimal part as #.
func KeyShape(key string) string {
	const longest = 128
	if len(key) > longest {
		key = key[:longest]
	}
	var b strings.Builder
	for _, part := range splitKeep(key) {
		if part == "" {
			continue
		}
		if digits := strings.Trim(part, "0123456789") == ""; digits || len(part) >= 16 && strings.Trim(part, "0123456789abcdefABCDEF") == "" {
			b.WriteByte('#')
			continue
		}
		in := false
		for _, r := range part {
			if d := r >= '0' && r <= '9'; !d {
				b.WriteRune(r)
				in = false
			} else if !in {
				b.WriteByte('#')
				in = true
			}
		}
	}
	return strings.ToValidUTF8(b.String(), "�")
}

func splitKeep(s string) []string {
	var out []string
	for s != "" {
		i := strings.IndexAny(s, ":/-_.{}|")
		if i < 0 {
			return append(out, s)
		}
		out = append(out, s[:i], s[i:i+1])
		s = s[i+1:]
	}
	return out
}

// RedisStats is what a server did between two looks. Rates are per second; ratios 0..1. Where two looks are too near or the server was
// started anew in between, Span is 0 and only what holds at one moment is told.
type RedisStats struct {
	Span          time.Duration  `json:"span_ns"`
	Version       string         `json:"version"`
	Role          string         `json:"role"`
	Commands      float64        `json:"commands_per_second"`
	Lookups       float64        `json:"lookups_per_second"`
	HitRatio      float64        `json:"hit_ratio"` // of Lookups; meaningless when they are 0
	Evicted       float64        `json:"evicted_per_second"`
	Expired       float64        `json:"expired_per_second"`
	Rejected      float64        `json:"rejected_connections_per_second"`
	NetIn         float64        `json:"bytes_in_per_second"`
	NetOut        float64        `json:"bytes_out_per_second"`
	CPU           float64        `json:"cpu"` // of one core; commands run on one: near 1 is the end
	Memory        int64          `json:"memory_bytes"`
	MaxMemory     int64          `json:"max_memory_bytes"` // 0 = no limit
	Policy        string         `json:"eviction_policy"`
	Fragmentation float64        `json:"fragmentation"`
	Clients       int            `json:"clients"`
	Blocked       int            `json:"blocked_clients"` // by BLPOP and the like, which may be as it should
	MaxClients    int            `json:"max_clients"`
	Loading       bool           `json:"loading"`
	ForkLast      time.Duration  `json:"last_fork_ns"` // the server stands still for it
	ByCommand     []CommandStat  `json:"by_command,omitempty"`
	Slow          []SlowCommand  `json:"slow,omitempty"` // since the earlier look
	Latency       []LatencyEvent `json:"latency,omitempty"`
	RTT           time.Duration  `json:"ping_ns"`
	Big           []BigCommand   `json:"big,omitempty"`
	Gaps          []Gap          `json:"gaps,omitempty"`
}

// CommandStat is what one command did between two looks.
type CommandStat struct {
	Name   string  `json:"name"`
	Calls  float64 `json:"calls_per_second"`
	MeanUS float64 `json:"mean_us"`
	Share  float64 `json:"share"` // of the time in commands
}

// BigCommand is a hint that one command does much at once.
type BigCommand struct {
	Command string  `json:"command"`
	Key     string  `json:"key,omitempty"`
	Why     string  `json:"why"`
	MeanUS  float64 `json:"mean_us,omitempty"`
}

// wholeKeys are the commands whose work grows with what is stored, not with what is asked.
var wholeKeys = words(`keys smembers hgetall hvals hkeys lrange zrange zrevrange zrangebyscore sort sunion sinter sdiff sunionstore sinterstore
zunionstore zinterstore flushall flushdb eval evalsha fcall script debug del`)

// RedisBetween says what a server did between two looks; the earlier may be the zero value.
func RedisBetween(before, after RedisLook) RedisStats {
	i := after.Info
	s := RedisStats{
		Version: i["redis_version"], Role: i["role"], Memory: int64(i.Num("used_memory")), MaxMemory: int64(i.Num("maxmemory")), Policy: i["maxmemory_policy"],
		Fragmentation: i.Num("mem_fragmentation_ratio"), Clients: int(i.Num("connected_clients")), Blocked: int(i.Num("blocked_clients")),
		MaxClients: int(i.Num("maxclients")), Loading: i["loading"] == "1", ForkLast: time.Duration(i.Num("latest_fork_usec")) * time.Microsecond,
		Latency: after.Latency, RTT: after.RTT, Gaps: slices.Clone(after.Gaps),
	}
	same := before.Info["run_id"] == i["run_id"] && i["run_id"] != ""
	if same && after.At.After(before.At) {
		s.Span = after.At.Sub(before.At)
	} else {
		s.Gaps = append(s.Gaps, Gap{"rates", "there is no earlier look at this run of the server"})
		before = RedisLook{}
	}
	rate := func(name string) float64 {
		if d := i.Num(name) - before.Info.Num(name); s.Span > 0 && d > 0 {
			return d / s.Span.Seconds()
		}
		return 0
	}
	s.Commands, s.Evicted, s.Expired, s.Rejected = rate("total_commands_processed"), rate("evicted_keys"), rate("expired_keys"), rate("rejected_connections")
	s.NetIn, s.NetOut, s.CPU = rate("total_net_input_bytes"), rate("total_net_output_bytes"), rate("used_cpu_user")+rate("used_cpu_sys")
	hits, misses := i.Num("keyspace_hits")-before.Info.Num("keyspace_hits"), i.Num("keyspace_misses")-before.Info.Num("keyspace_misses")
	if hits+misses > 0 {
		s.HitRatio = hits / (hits + misses)
	}
	s.Lookups = rate("keyspace_hits") + rate("keyspace_misses")
	s.ByCommand = commandsBetween(before.Info, i, s.Span)
	for _, c := range after.Slow {
		if s.Span == 0 || !c.At.Before(before.At.Truncate(time.Second)) { // the log has seconds
			s.Slow = append(s.Slow, c)
		}
	}
	s.Big = bigCommands(s)
	return s
}

func commandsBetween(before, after RedisInfo, span time.Duration) []CommandStat {
	var out []CommandStat
	var total float64
	for key, value := range after {
		name, ok := strings.CutPrefix(key, "cmdstat_")
		if !ok {
			continue
		}
		calls, usec := cmdstat(value)
		c0, u0 := cmdstat(before[key])
		calls, usec = calls-c0, usec-u0
		if calls <= 0 || usec < 0 {
			continue
		}
		c := CommandStat{Name: name, MeanUS: usec / calls, Share: usec}
		if span > 0 {
			c.Calls = calls / span.Seconds()
		}
		total += usec
		out = append(out, c)
	}
	for i := range out {
		if total > 0 {
			out[i].Share /= total
		}
	}
	slices.SortFunc(out, func(a, b CommandStat) int { return cmp.Or(compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), 50)]
}

func cmdstat(s string) (calls, usec float64) {
	for pair := range strings.SplitSeq(s, ",") {
		switch k, v, _ := strings.Cut(pair, "="); k {
		case "calls":
			calls = num(v)
		case "usec":
			usec = num(v)
		}
	}
	return calls, usec
}

func bigCommands(s RedisStats) []BigCommand {
	const slowUS, wide = 1000.0, 32
	var out []BigCommand
	for _, c := range s.ByCommand {
		if name, _, _ := strings.Cut(c.Name, "|"); wholeKeys[name] && c.MeanUS >= slowUS {
			out = append(out, BigCommand{c.Name, "", "reads or changes whole collections, and takes " + strconv.Itoa(int(c.MeanUS)) + " us a call", c.MeanUS})
		}
	}
	seen := map[string]bool{}
	for _, c := range s.Slow {
		why := ""
		switch {
		case wholeKeys[c.Command]:
			why = "reads or changes whole collections, and was slow"
		case c.Args >= wide:
			why = "has 32 arguments or more, and was slow"
		}
		if k := c.Command + " " + c.Key; why != "" && !seen[k] && len(out) < 50 {
			seen[k] = true
			out = append(out, BigCommand{c.Command, c.Key, why, float64(c.Took.Microseconds())})
		}
	}
	return out
}
