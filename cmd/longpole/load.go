package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/load"
	"github.com/longpole/longpole/setting"
)

const loadLong = `Send traffic at a rate that does not depend on the answers (open loop), and say what came of it.

Response time counts from the moment at which a call was due, service time from the moment at which it was sent. A server
that stands still for a second makes all calls slow that are due in that second: response time shows it, and a generator that
waits for its answers before it sends more (wrk, ab, hey) does not.

A target is a URL: http, https, or grpc and grpcs with the method as path (without one: the standard health check). URLs, header
values and bodies may hold placeholders: {{seq}}, {{random 1 1000}}, {{hex 16}}, {{uuid}}, {{pick a b c}}. A --scenario file
can say more, such as several methods and bodies; flags that are given replace what it says. Its fields are in docs/load.md.

Thresholds: --threshold 'p99<250ms', 'service.p95<=80ms', 'errors<1%', 'timeouts<0.1%', 'rate>950', 'orders:p99<80ms'.

A run is INVALID when the generator itself was late (--max-lag), when the processors were busy (--max-cpu), or when too many
calls were in flight to send more (--max-in-flight): then its figures are not those of the system.

Exit codes: 0 done, 97 interrupted, 98 the run is invalid, 99 a threshold failed, 104 the scenario has faults.`

// loadFlags are the flags of `longpole load`, with the texts of a file.
type loadFlags struct {
	scenario, output, save, hdr                   string
	replay, to, speed                             string
	loop, unsafe, keepHost                        bool
	texts                                         map[string]*string // by the field of a scenario
	stages, headers, thresholds                   []string
	weights                                       string
	method, body, bodyFile, bodyTemplate, service string
	http2, h2c, noKeepAlive, insecure             bool
}

func newLoad() *cobra.Command {
	q := loadFlags{texts: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "load [--rate N] [--duration TIME] [flags] URL... | --scenario FILE | --replay FILE --to URL",
		Short: "Send open-loop traffic, and measure response and service times",
		Long:  loadLong,
		Example: `  longpole load --rate 200 --duration 1m --threshold 'p99<250ms' --threshold 'errors<1%' http://127.0.0.1:8080/
  longpole load --rate 50 --stage 500:2m --stage 500:5m --save after.json 'http://shop.test/orders/{{random 1 5000}}'
  longpole load --arrivals bursty --burst-on 2s --burst-off 8s --rate 100 --duration 2m grpc://127.0.0.1:9000
  longpole load --replay traffic.zst --to http://staging:8080 --speed 2
  longpole load --scenario checkout.yaml -o html > run.html`,
		RunE: func(cmd *cobra.Command, args []string) error { return q.run(cmd, args) },
	}
	q.add(cmd)
	return cmd
}

func (q *loadFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	text := func(field, name, usage string) {
		q.texts[field] = f.String(name, "", usage)
	}
	f.StringVar(&q.scenario, "scenario", "", "`FILE` (YAML) with targets and all that the flags can say")
	text("rate", "rate", "calls a second, all targets together: `N` (default 10)")
	text("arrivals", "arrivals", "`PROCESS` by which calls come: poisson, uniform or bursty (default poisson)")
	text("burst.on", "burst-on", "mean `TIME` of a burst (default 1s)")
	text("burst.off", "burst-off", "mean `TIME` of a pause (default 4s)")
	text("burst.idle", "burst-idle", "rate within a pause as a `SHARE` of the mean rate (default 0)")
	f.StringArrayVar(&q.stages, "stage", nil, "`RATE:TIME`: the rate goes to RATE on a straight line within TIME; may be repeated")
	text("duration", "duration", "`TIME` of the run (default that of the stages, or 10s)")
	text("warmup", "warmup", "`TIME` of traffic before, which is not measured (default none)")
	text("seed", "seed", "`NUMBER`: equal ones send equal traffic at equal times")
	f.StringVar(&q.method, "method", "", "`METHOD` of the URLs (default GET, and POST with a body)")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "`NAME: VALUE` of a header field; may be repeated")
	f.StringVar(&q.body, "body", "", "`TEXT` of the body")
	f.StringVar(&q.bodyFile, "body-file", "", "`FILE` with the body, sent as it is; of a gRPC call the encoded message")
	f.StringVar(&q.bodyTemplate, "body-template", "", "`FILE` with the body, with placeholders")
	f.StringVar(&q.service, "grpc-service", "", "`NAME` of the service whose health is asked for (default the server's)")
	f.StringVar(&q.weights, "weights", "", "shares of the URLs, as `3,1` (default equal)")
	f.StringVar(&q.replay, "replay", "", "`FILE` of recorded traffic to send again, as it came")
	f.StringVar(&q.to, "to", "", "`URL` to which a replay is sent")
	f.StringVar(&q.speed, "speed", "", "`FACTOR` by which a replay is faster (default 1)")
	f.BoolVar(&q.loop, "loop", false, "begin the replay again at its end")
	f.BoolVar(&q.unsafe, "unsafe", false, "also replay calls that change something, as POST")
	f.BoolVar(&q.keepHost, "keep-host", false, "replay with the recorded Host fields")
	f.BoolVar(&q.http2, "http2", false, "HTTP/2 over TLS")
	f.BoolVar(&q.h2c, "h2c", false, "HTTP/2 in clear text")
	text("connections", "connections", "`N` connections to each server, for which calls wait (default as many as there are calls in flight)")
	text("streams", "streams", "`N` calls at once on a connection of HTTP/2 (default 100)")
	f.BoolVar(&q.noKeepAlive, "no-keep-alive", false, "a connection for each call")
	text("timeout", "timeout", "`TIME` of one call from the moment of sending (default 10s)")
	text("max_in_flight", "max-in-flight", "`N` calls begun and not ended, for each target (default two seconds of calls, 1024 to 16384)")
	text("max_lag", "max-lag", "`TIME`: a lag p99 of the generator above it makes the run invalid (default 1ms, or 5 % of the median response time)")
	text("max_cpu", "max-cpu", "`SHARE`: busier processors make the run invalid; 100% = never (default 95%)")
	text("tls.ca_file", "cacert", "`FILE` with the authorities to trust, PEM")
	text("tls.cert_file", "cert", "`FILE` with the certificate to show, PEM")
	text("tls.key_file", "key", "`FILE` with its key, PEM")
	text("tls.server_name", "server-name", "`NAME` that the server's certificate must have (default the URL's host)")
	f.BoolVarP(&q.insecure, "insecure", "k", false, "do not verify the server's certificate")
	f.StringArrayVar(&q.thresholds, "threshold", nil, "`CONDITION` that must hold, or the exit code is 99; may be repeated")
	f.StringVarP(&q.output, "output", "o", "text", "`FORMAT`: text, json or html")
	f.StringVar(&q.save, "save", "", "`FILE` for all that was measured, as `longpole compare` reads it")
	f.StringVar(&q.hdr, "hdr", "", "`FILE` for the percentiles of response time in the format of HdrHistogram plots")
}

// collectAt lets garbage grow to eight times what is in use, which stays below some 200 MiB for thousands of calls in flight.
const collectAt = 800

func (q *loadFlags) run(cmd *cobra.Command, args []string) error {
	if err := checkOutput(q.output, "text", "json", "html"); err != nil {
		return err
	}
	s, err := q.read(args)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(collectAt)) // a collection is lag
	}
	bar := newProgress(cmd.ErrOrStderr())
	report, err := load.Run(cmd.Context(), s, load.RunOptions{Precise: true, Progress: func(p load.Progress) { showLoad(bar, p) }})
	bar.Clear()
	if err != nil {
		return &failure{code: exitError, err: err}
	}
	if err := q.write(cmd.OutOrStdout(), report); err != nil {
		return err
	}
	return loadVerdict(report)
}

// loadVerdict turns what came of a run into the exit code. What is not valid proves nothing, not even that a threshold failed.
func loadVerdict(r load.Report) error {
	failed := 0
	for _, c := range r.Thresholds {
		if !c.Held {
			failed++
		}
	}
	switch {
	case r.Interrupted:
		return &failure{code: exitAborted, err: errors.New("interrupted: the figures are those up to then")}
	case !r.Valid:
		return &failure{code: exitInconclusive, err: fmt.Errorf("the run is INVALID: %s", strings.Join(r.Doubts, "; ")), hint: loadHint(r)}
	case failed > 0:
		return &failure{code: exitThreshold, err: fmt.Errorf("%s of %d failed", count(failed, "threshold"), len(r.Thresholds))}
	}
	return nil
}

func loadHint(r load.Report) string {
	if r.Total.Dropped > 0 {
		return "raise --max-in-flight when the system can bear it, or lower --rate"
	}
	return "run the generator on a machine of its own, or lower --rate"
}

// write prints the report and writes the files that were asked for.
func (q *loadFlags) write(out io.Writer, r load.Report) error {
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{q.save, func(w io.Writer) error { return json.NewEncoder(w).Encode(r) }},
		{q.hdr, r.WriteHDR},
	} {
		if f.name == "" {
			continue
		}
		var b bytes.Buffer
		if err := f.write(&b); err != nil {
			return err
		}
		if err := os.WriteFile(f.name, b.Bytes(), 0o644); err != nil { //nolint:gosec // figures that others may read
			return err
		}
	}
	switch q.output {
	case "json":
		return writeJSON(out, r.Printed())
	case "html":
		return r.WriteHTML(out)
	}
	return renderLoad(out, r)
}

// flagFields names the flag of a field of a scenario, where the two differ.
var flagFields = map[string]string{
	"burst.on": "--burst-on", "burst.off": "--burst-off", "burst.idle": "--burst-idle", "max_in_flight": "--max-in-flight",
	"max_lag": "--max-lag", "max_cpu": "--max-cpu", "tls.ca_file": "--cacert", "tls.cert_file": "--cert", "tls.key_file": "--key",
	"tls.server_name": "--server-name", "replay.file": "--replay", "replay.base": "--to", "replay.speed": "--speed", "targets": "URL",
	"keep_alive": "--no-keep-alive", "headers": "--header",
}

// read gives the scenario that file and flags describe.
func (q *loadFlags) read(args []string) (load.Scenario, error) {
	hint := "see `longpole load --help`"
	var s load.Scenario
	switch {
	case q.scenario != "" && (len(args) > 0 || q.replay != ""), q.replay != "" && len(args) > 0:
		return s, usagef(hint, "give URLs, --scenario or --replay, not two of them")
	case q.scenario != "":
		data, err := readBounded(q.scenario, conf.MaxBytes)
		if err != nil {
			return s, &failure{code: exitConfig, err: err}
		}
		if s, err = load.ReadScenario(q.scenario, data); err != nil {
			return s, faulty(q.scenario, err, "the fields of a scenario are in docs/load.md")
		}
	case q.replay == "" && len(args) == 0:
		return s, usagef(hint, "longpole load needs a URL, --scenario FILE or --replay FILE")
	}
	fields, err := q.fields()
	if err == nil {
		var data []byte
		if data, err = json.Marshal(fields); err == nil {
			err = conf.Decode("flags", data, &s)
		}
	}
	if err == nil {
		err = q.targets(&s, args)
	}
	if err == nil {
		err = s.WithDefaults().Validate()
	}
	if err != nil {
		return s, &failure{code: exitUsage, err: namedByFlag(err), hint: hint}
	}
	return s, nil
}

// fields are the flags as a scenario would have them. Their units are those of a file, and so is what reads them.
func (q *loadFlags) fields() (map[string]any, error) {
	fields := map[string]any{}
	set := func(path string, v any) {
		at := fields
		outer, inner, nested := strings.Cut(path, ".")
		if nested {
			if fields[outer] == nil {
				fields[outer] = map[string]any{}
			}
			at, path = fields[outer].(map[string]any), inner
		}
		at[path] = v
	}
	for path, text := range q.texts {
		if *text == "" {
			continue
		}
		var v any = *text
		if n, err := strconv.ParseFloat(*text, 64); err == nil {
			v = n
		}
		set(path, v)
	}
	var stages []any
	for _, text := range q.stages {
		rate, over, found := strings.Cut(text, ":")
		n, err := strconv.ParseFloat(rate, 64)
		if !found || err != nil {
			return nil, fmt.Errorf("--stage: %q is not allowed; want RATE:TIME, as 500:2m", text)
		}
		stages = append(stages, map[string]any{"rate": n, "over": over})
	}
	if stages != nil {
		set("stages", stages)
	}
	switch {
	case q.http2 && q.h2c:
		return nil, errors.New("--http2 and --h2c together")
	case q.http2:
		set("protocol", "http2")
	case q.h2c:
		set("protocol", "h2c")
	}
	if q.noKeepAlive {
		set("keep_alive", false)
	}
	if q.insecure {
		set("tls.insecure", true)
	}
	return fields, nil
}

// targets puts what is no text of a field into s.
func (q *loadFlags) targets(s *load.Scenario, args []string) error {
	var weights []float64
	if q.weights != "" {
		for w := range strings.SplitSeq(q.weights, ",") {
			n, err := strconv.ParseFloat(w, 64)
			if err != nil || !(n > 0) {
				return fmt.Errorf("--weights: %q is not allowed; want numbers above 0, as 3,1", q.weights)
			}
			weights = append(weights, n)
		}
		if len(weights) != len(args) {
			return fmt.Errorf("--weights: %s for %s", count(len(weights), "share"), count(len(args), "URL"))
		}
	}
	for i, url := range args {
		c := load.Call{URL: url, Method: q.method, Body: q.body, BodyFile: q.bodyFile, BodyTemplate: q.bodyTemplate, Service: q.service}
		if weights != nil {
			c.Weight = weights[i]
		}
		s.Targets = append(s.Targets, c)
	}
	for _, text := range q.headers {
		name, value, found := strings.Cut(text, ":")
		if !found {
			return fmt.Errorf("--header: %q is not allowed; want NAME: VALUE", text)
		}
		if s.Headers == nil {
			s.Headers = map[string]string{}
		}
		s.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	s.Thresholds = append(s.Thresholds, q.thresholds...)
	if q.replay == "" {
		return nil
	}
	s.Replay = &load.Recorded{File: q.replay, To: q.to, Loop: q.loop, Unsafe: q.unsafe, KeepHost: q.keepHost}
	if q.speed != "" {
		n, err := strconv.ParseFloat(q.speed, 64)
		if err != nil {
			return fmt.Errorf("--speed: %q is not allowed; want a number", q.speed)
		}
		s.Replay.Speed = n
	}
	return nil
}

// namedByFlag puts the names of flags before faults, in place of the fields of a file.
func namedByFlag(err error) error {
	var lines []string
	for _, one := range setting.List(err) {
		var line string
		var placed *conf.Error
		var fault *setting.Error
		switch {
		case errors.As(one, &placed):
			line = flagOfField(placed.Path) + ": " + placed.Msg
		case errors.As(one, &fault):
			line = flagOfField(fault.Path) + strings.TrimPrefix(fault.Error(), fault.Path)
		default:
			line = one.Error()
		}
		lines = append(lines, line)
	}
	return errors.New(strings.Join(lines, "\n"))
}

func flagOfField(path string) string {
	if name, ok := flagFields[path]; ok {
		return name
	}
	if outer, _, nested := strings.Cut(path, "["); nested {
		name := map[string]string{"thresholds": "--threshold", "stages": "--stage", "targets": "URL"}[outer]
		if name != "" {
			if _, field, deeper := strings.Cut(path, "]."); deeper && outer == "targets" && field != "url" {
				return "--" + strings.ReplaceAll(field, "_", "-")
			}
			return name
		}
	}
	return "--" + strings.ReplaceAll(path, "_", "-")
}

// showLoad is the live line.
func showLoad(bar *progress, p load.Progress) {
	of := ""
	if p.Length > 0 {
		of = "/" + p.Length.Round(time.Second).String()
	}
	what := ""
	if p.Warmup {
		what = " warm-up"
	}
	bar.Show("%s%s%s  %d/s  p50 %s  p99 %s ms  errors %s  in flight %d  lag p99 %s ms",
		p.Took.Round(time.Second), of, what, p.Second.Calls,
		ms(milliseconds(p.Second.Response.Quantile(0.5))), ms(milliseconds(p.Second.Response.Quantile(0.99))),
		percent(p.Total.ErrorRatio()), p.InFlight, ms(milliseconds(p.Total.Lag.Quantile(0.99))))
}
