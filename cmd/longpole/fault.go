package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/fault"
	"github.com/longpole/longpole/internal/web"
)

const faultsPath = "/api/v1/faults"

const faultLong = `Hurt a share of a route's calls on purpose, to see whether the policies hold what they promise. A fault says what is expected
(--hypothesis), is as small as --share and its conditions make it, and always ends: by its --ttl, by its stop condition
(--stop-errors), or by hand.

By default a fault stands in front of the policies, and the client feels it. With --at attempt it stands in place of an
endpoint, and retries, hedges, breakers and ejection must cope.

The commands speak to the admin address of a running gateway: --admin, or LONGPOLE_ADMIN; with the gateway's own
LONGPOLE_ADMIN_TOKEN where it has one.`

func newFault() *cobra.Command {
	return adminGroup(&cobra.Command{Use: "fault", Short: "Hurt a share of the calls on purpose, for a while", Long: faultLong},
		newFaultStart, newFaultList, newFaultStop)
}

// faultFlags are those of `fault start`, with the texts of a file.
type faultFlags struct {
	route, hypothesis, share, traces, at, endpoint    string
	delay, reset, resetAfter, bandwidth, ttl, stopped string
	methods, headers                                  []string
	abort, seed, most, stopCalls                      int
	blackhole                                         bool
}

// flagOf names the flag behind a field of a fault, where the two differ.
var flagOf = map[string]string{
	"method": "method", "headers": "header", "bytes_per_second": "bandwidth", "reset_after": "reset-after", "max_active": "max-active",
	"stop.error_ratio": "stop-errors", "stop.min_calls": "stop-calls", "traces.from": "traces", "traces.to": "traces",
}

func newFaultStart(c *adminClient) *cobra.Command {
	var q faultFlags
	var output string
	cmd := &cobra.Command{
		Use:   "start NAME --route ROUTE --share SHARE --ttl TIME EFFECT... [flags]",
		Short: "Start a fault",
		Long: `Start a fault on a route. At least one effect is needed: --delay, --abort, --reset, --bandwidth or --blackhole.

A delay is a duration, or a distribution with its parameters:
  200ms
  uniform,min=10ms,max=200ms
  normal,mean=100ms,deviation=20ms
  lognormal,median=20ms,p99=900ms     the shape of most services
  exponential,mean=100ms
  pareto,min=20ms,shape=1.2           a heavy tail`,
		Example: `  longpole fault start slow-orders --route orders --share 5% --ttl 10m --delay lognormal,median=20ms,p99=900ms \
    --hypothesis "the hedge keeps p99 below 100 ms" --stop-errors 2%
  longpole fault start dead-replica --route orders --share 100% --ttl 5m --at attempt --endpoint 10.0.0.3:9001 --blackhole
  longpole fault start mine --route orders --share 100% --ttl 1h --header X-Test=chaos --abort 503`,
		Args: oneArg("the name of the fault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			request, err := q.request(args[0])
			if err != nil {
				return err
			}
			var s web.FaultStatus
			if err := c.do(cmd.Context(), http.MethodPost, faultsPath, request, &s); err != nil {
				return err
			}
			return showFaults(cmd.OutOrStdout(), output, []web.FaultStatus{s}, s)
		},
	}
	q.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func (q *faultFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.route, "route", "", "`ROUTE` whose calls are hurt")
	f.StringVar(&q.share, "share", "", "`SHARE` of the calls that meet the conditions, as 5%")
	f.StringVar(&q.ttl, "ttl", "", "`TIME` after which it ends by itself, up to 24h")
	f.StringVar(&q.hypothesis, "hypothesis", "", "`TEXT`: what is expected to hold; kept in the record")
	f.StringSliceVar(&q.methods, "method", nil, "condition: `METHOD` of the call; several with commas (default any)")
	f.StringArrayVar(&q.headers, "header", nil, "condition: `NAME=VALUE` of a request field, or NAME for any value; may be repeated")
	f.StringVar(&q.traces, "traces", "", "condition: `RANGE` of the hash of the trace ID, as 0-10%: whole traces, the same in each gateway")
	f.StringVar(&q.at, "at", "", "`POINT`: call, in front of the policies, or attempt, in place of an endpoint (default call)")
	f.StringVar(&q.endpoint, "endpoint", "", "condition: `HOST:PORT` of the attempt; with --at attempt (default any)")
	f.StringVar(&q.delay, "delay", "", "effect: wait this `TIME`, or a distribution: see above")
	f.IntVar(&q.abort, "abort", 0, "effect: answer with this `STATUS`, 400..599, instead of the real one")
	f.StringVar(&q.reset, "reset", "", "effect: break the connection off: `MOMENT` before_head or mid_body")
	f.StringVar(&q.resetAfter, "reset-after", "", "`BYTES` of the body before mid_body (default 1KiB)")
	f.StringVar(&q.bandwidth, "bandwidth", "", "effect: `BYTES` of the answer's body a second, as 10KiB")
	f.BoolVar(&q.blackhole, "blackhole", false, "effect: no answer until the deadline")
	f.StringVar(&q.stopped, "stop-errors", "", "stop condition: `SHARE` of all calls of the route in the last 10 s that fail (default none)")
	f.IntVar(&q.stopCalls, "stop-calls", 0, "before this `NUMBER` of calls the stop condition gives no verdict (default 20)")
	f.IntVar(&q.most, "max-active", 0, "`NUMBER` of calls that suffer at once; others pass (default 1000)")
	f.IntVar(&q.seed, "seed", 0, "`NUMBER`: equal ones hit the same calls of equal sequences")
	for _, name := range []string{"abort", "stop-calls", "max-active"} {
		f.Lookup(name).DefValue = "" // its text names the default
	}
}

// request is the fault that the flags describe. Their units are those of a file, and so is what reads them.
func (q *faultFlags) request(name string) (web.FaultRequest, error) {
	fields := map[string]any{"name": name}
	for key, text := range map[string]string{
		"route": q.route, "share": q.share, "ttl": q.ttl, "hypothesis": q.hypothesis, "at": q.at, "endpoint": q.endpoint,
		"reset": q.reset, "reset_after": q.resetAfter, "bytes_per_second": q.bandwidth,
	} {
		if text != "" {
			fields[key] = text
		}
	}
	for key, n := range map[string]int{"abort": q.abort, "seed": q.seed, "max_active": q.most} {
		if n != 0 {
			fields[key] = n
		}
	}
	if len(q.methods) > 0 {
		fields["method"] = q.methods
	}
	if q.blackhole {
		fields["blackhole"] = true
	}
	q.conditions(fields)
	if q.delay != "" {
		fields["delay"] = parameters(q.delay)
	}
	var request web.FaultRequest
	text, err := json.Marshal(fields)
	if err != nil {
		return request, err
	}
	if err := conf.Load("flags", text, &request, (*web.FaultRequest).Validate); err != nil {
		return request, faultyFlags(err)
	}
	return request, nil
}

func (q *faultFlags) conditions(fields map[string]any) {
	if len(q.headers) > 0 {
		headers := map[string]string{}
		for _, text := range q.headers {
			name, value, ok := strings.Cut(text, "=")
			if !ok {
				value = "*"
			}
			headers[name] = value
		}
		fields["headers"] = headers
	}
	if q.traces != "" {
		from, to, ok := strings.Cut(q.traces, "-")
		if !ok {
			from, to = "0", q.traces
		}
		if !strings.HasSuffix(from, "%") && strings.HasSuffix(to, "%") {
			from += "%" // 10-20% is what people write
		}
		fields["traces"] = map[string]string{"from": from, "to": to}
	}
	if q.stopped != "" || q.stopCalls != 0 {
		stop := map[string]any{}
		if q.stopped != "" {
			stop["error_ratio"] = q.stopped
		}
		if q.stopCalls != 0 {
			stop["min_calls"] = q.stopCalls
		}
		fields["stop"] = stop
	}
}

// parameters reads "lognormal,median=20ms,p99=900ms", or a duration alone.
func parameters(delay string) any {
	parts := strings.Split(delay, ",")
	if len(parts) == 1 {
		return delay
	}
	all := map[string]any{"distribution": parts[0]}
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(p, "=")
		all[name] = value
	}
	return all
}

// faultyFlags says which flags are wrong, a line each.
func faultyFlags(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return usagef("see `longpole fault start --help`", "%w", err)
	}
	var lines []string
	for _, one := range joined.Unwrap() {
		at, ok := errors.AsType[*conf.Error](one)
		switch {
		case !ok:
			lines = append(lines, one.Error())
		case at.Path == "":
			lines = append(lines, strings.ReplaceAll(at.Msg, "bytes_per_second", "bandwidth"))
		case at.Path == "name":
			lines = append(lines, "NAME: "+at.Msg)
		default:
			lines = append(lines, "--"+flagName(at.Path)+": "+at.Msg)
		}
	}
	return usagef("see `longpole fault start --help`", "%s", strings.Join(lines, "\n"))
}

func flagName(path string) string {
	if name := flagOf[path]; name != "" {
		return name
	}
	first, _, _ := strings.Cut(path, ".")
	first, _, _ = strings.Cut(first, "[")
	if name := flagOf[first]; name != "" {
		return name
	}
	return strings.ReplaceAll(first, "_", "-")
}

func newFaultList(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List faults, running and ended", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			answer := struct{ Faults []web.FaultStatus }{Faults: []web.FaultStatus{}}
			if err := c.do(cmd.Context(), http.MethodGet, faultsPath, nil, &answer); err != nil {
				return err
			}
			if len(answer.Faults) == 0 && output == "table" {
				fmt.Fprintln(cmd.ErrOrStderr(), "longpole: no fault yet; `longpole fault start` starts one")
			}
			return showFaults(cmd.OutOrStdout(), output, answer.Faults, answer.Faults)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func newFaultStop(c *adminClient) *cobra.Command {
	var reason, output string
	cmd := &cobra.Command{
		Use: "stop NAME", Short: "Stop a fault before its time; what calls suffer already, they suffer to the end", Args: oneArg("the name of the fault"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			path := faultsPath + "/" + url.PathEscape(args[0])
			if reason != "" {
				path += "?" + url.Values{"reason": {reason}}.Encode()
			}
			var s web.FaultStatus
			if err := c.do(cmd.Context(), http.MethodDelete, path, nil, &s); err != nil {
				return err
			}
			return showFaults(cmd.OutOrStdout(), output, []web.FaultStatus{s}, s)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the record: why")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

// showFaults writes a table of all, or v as JSON.
func showFaults(w io.Writer, output string, all []web.FaultStatus, v any) error {
	if output == "json" {
		return writeJSON(w, v)
	}
	rows := [][]string{{"FAULT", "ROUTE", "STATE", "SHARE", "EFFECT", "HITS", "OF", "ACTIVE", "ENDS", "HYPOTHESIS"}}
	for _, s := range all {
		var c fault.Config
		if err := conf.Decode("config", s.Config, &c); err != nil {
			return err // a gateway of another version
		}
		state, ends := "running", s.Ends.Local().Format(time.TimeOnly)
		if !s.Running() {
			state, ends = "ended", cut(s.Stopped, 40)
		}
		rows = append(rows, []string{
			s.Name, s.Route, state, percent(c.Share), effect(c), strconv.FormatUint(s.Hits, 10), strconv.FormatUint(s.Eligible, 10),
			strconv.FormatInt(s.Active, 10), ends, dash(cut(s.Hypothesis, 60)),
		})
	}
	table(w, rows)
	return nil
}

// effect is what a fault does, in a few words.
func effect(c fault.Config) string {
	var all []string
	if d := c.Delay; d != nil {
		text := "delay " + string(d.Distribution)
		if d.Distribution == fault.Fixed || d.Distribution == "" {
			text = "delay " + d.Mean.String()
		}
		all = append(all, text)
	}
	if c.Abort != 0 {
		all = append(all, "abort "+strconv.Itoa(c.Abort))
	}
	if c.Reset != "" {
		all = append(all, "reset "+string(c.Reset))
	}
	if c.BytesPerSecond != 0 {
		all = append(all, strconv.FormatInt(c.BytesPerSecond, 10)+" B/s")
	}
	if c.Blackhole {
		all = append(all, "blackhole")
	}
	return strings.Join(all, ", ")
}
