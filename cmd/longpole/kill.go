package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/web"
)

const killLong = `Switch parts of policies off by hand, at once and whatever rollouts and the file say: the caches, limits, retries, hedges,
breakers, ejection or fallbacks of one route or of all. With "rollouts" those under way are aborted and none begins. What a
policy has learned stays. With a state folder it stays off across restarts, until it is restored.

A call to this command says all that is to be off on the route: what it does not name is on again.

The commands speak to the admin address of a running gateway: --admin, or LONGPOLE_ADMIN; with the gateway's own
LONGPOLE_ADMIN_TOKEN where it has one.`

const killedPath = "/api/v1/killed"

func newKill() *cobra.Command {
	return adminGroup(&cobra.Command{Use: "kill", Short: "Switch caches, retries, limits or rollouts off by hand", Long: killLong}, newKillOff, newKillRestore, newKillList)
}

func newKillOff(c *adminClient) *cobra.Command {
	var k web.KillRequest
	cmd := &cobra.Command{
		Use:   "off PART... --reason TEXT [--route NAME]",
		Short: "Switch parts off: " + strings.Join(append(gateway.PartNames(), rollout.Rollouts, "all"), ", "),
		Example: `  longpole kill off cache --route catalogue --reason "stale prices"
  longpole kill off all --reason "incident 1287"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("all, or some of "+strings.Join(append(gateway.PartNames(), rollout.Rollouts), ", "), "what is to be off?")
			}
			k.Parts = args
			return c.kill(cmd, k)
		},
	}
	killFlags(cmd, &k)
	return cmd
}

func newKillRestore(c *adminClient) *cobra.Command {
	var k web.KillRequest
	cmd := &cobra.Command{
		Use: "restore --reason TEXT [--route NAME]", Short: "Switch everything on again", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.kill(cmd, k) },
	}
	killFlags(cmd, &k)
	return cmd
}

func killFlags(cmd *cobra.Command, k *web.KillRequest) {
	cmd.Flags().StringVar(&k.Route, "route", "", "`NAME` of the route (default every route)")
	cmd.Flags().StringVar(&k.Reason, "reason", "", "`TEXT` for the journal: why; required")
}

// killed is what the gateway answers.
type killed struct {
	Killed     map[string][]string `json:"killed"`
	NoRollouts map[string]string   `json:"no_rollouts"`
}

func (c *adminClient) kill(cmd *cobra.Command, k web.KillRequest) error {
	if k.Reason == "" {
		return usagef("whoever finds it off will want to know", "--reason TEXT is missing")
	}
	var now killed
	if err := c.do(cmd.Context(), http.MethodPost, killedPath, k, &now); err != nil {
		return err
	}
	showKilled(cmd, now)
	return nil
}

func newKillList(c *adminClient) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list [-o table|json]", Short: "List what is switched off", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			var now killed
			if err := c.do(cmd.Context(), http.MethodGet, killedPath, nil, &now); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), now)
			}
			showKilled(cmd, now)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	return cmd
}

func showKilled(cmd *cobra.Command, now killed) {
	for route := range now.NoRollouts {
		now.Killed[route] = append(now.Killed[route], rollout.Rollouts)
	}
	if len(now.Killed) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "longpole: nothing is switched off")
		return
	}
	rows := [][]string{{"ROUTE", "OFF"}}
	for _, route := range slices.Sorted(maps.Keys(now.Killed)) {
		rows = append(rows, []string{cmp.Or(route, "(every)"), strings.Join(now.Killed[route], " ")})
	}
	table(cmd.OutOrStdout(), rows)
}
