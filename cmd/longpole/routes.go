package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/gateway"
)

// routeList is the answer of /api/v1/routes.
type routeList struct {
	Version string                `json:"version"`
	Routes  []gateway.RouteStatus `json:"routes"`
}

func (c *adminClient) routes(ctx context.Context) (routeList, error) {
	var l routeList
	err := c.do(ctx, http.MethodGet, "/api/v1/routes", nil, &l)
	return l, err
}

const routesLong = `Show the routes of a running gateway in the order in which they are tried: what each takes and where it sends it, its
calls per second, the share that succeeded, and its quantiles over the last 20 to 30 seconds, in milliseconds to the head of
the answer. TRIES is the attempts per call since the route began: more than 1.00 is retries and hedges. FIT is how many of the
endpoints are in the rotation.`

func newRoutes() *cobra.Command {
	var c adminClient
	var output string
	cmd := &cobra.Command{
		Use:   "routes [-o table|wide|json] [NAME]",
		Short: "Show the routes of a running gateway and how they do",
		Long:  routesLong,
		Example: `  longpole routes
  longpole routes -o wide          # each endpoint on a line of its own, too
  longpole routes -o json orders | jq '.routes[0].policy'`,
		Args: maxOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "wide", "json"); err != nil {
				return err
			}
			return c.showRoutes(cmd, output, args)
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table, wide or json")
	return cmd
}

func (c *adminClient) showRoutes(cmd *cobra.Command, output string, names []string) error {
	list, err := c.routes(cmd.Context())
	if err != nil {
		return err
	}
	if len(names) == 1 {
		if list.Routes = only(list.Routes, names[0]); len(list.Routes) == 0 {
			return &failure{code: exitError, err: fmt.Errorf("there is no route %q", names[0]), hint: "`longpole routes` lists them"}
		}
	}
	w := cmd.OutOrStdout()
	if output == "json" {
		return writeJSON(w, list)
	}
	table(w, routeRows(list.Routes))
	if output == "wide" {
		fmt.Fprintln(w)
		table(w, endpointRows(list.Routes))
	}
	return nil
}

func only(all []gateway.RouteStatus, name string) []gateway.RouteStatus {
	for i := range all {
		if all[i].Name == name {
			return all[i : i+1]
		}
	}
	return nil
}

func routeRows(all []gateway.RouteStatus) [][]string {
	rows := [][]string{{"ROUTE", "MATCH", "UPSTREAM", "RPS", "SUCCESS", "P50", "P95", "P99", "P99.9", "TRIES", "FIT"}}
	for i := range all {
		r := &all[i]
		fit := 0
		for _, e := range r.Endpoints {
			if e.Healthy {
				fit++
			}
		}
		rows = append(rows, []string{
			r.Name, cut(r.Match.String(), 40), dash(cut(r.Target(), 40)), rate(r.RPS), percent(1 - r.ErrorRatio), ms(r.LatencyMS.P50), ms(r.LatencyMS.P95),
			ms(r.LatencyMS.P99), ms(r.LatencyMS.P999), tries(r), fmt.Sprintf("%d/%d", fit, len(r.Endpoints)),
		})
	}
	return rows
}

func endpointRows(all []gateway.RouteStatus) [][]string {
	rows := [][]string{{"ROUTE", "ENDPOINT", "STATE", "BREAKER", "IN-FLIGHT", "ATTEMPTS", "P50", "P95", "P99", "P99.9"}}
	for i := range all {
		for _, e := range all[i].Endpoints {
			state := "fit"
			if !e.Healthy {
				state = "unfit"
			}
			rows = append(rows, []string{
				all[i].Name, e.Name, state, e.Breaker, fmt.Sprint(e.InFlight), fmt.Sprint(e.Attempts),
				ms(e.LatencyMS.P50), ms(e.LatencyMS.P95), ms(e.LatencyMS.P99), ms(e.LatencyMS.P999),
			})
		}
	}
	return rows
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func rate(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// tries is the attempts per call.
func tries(r *gateway.RouteStatus) string {
	if r.Calls == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r.AttemptsPerCall)
}
