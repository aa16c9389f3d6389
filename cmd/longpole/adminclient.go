package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/longpole/longpole/internal/conf"
)

// adminClient speaks to the admin API.
type adminClient struct {
	base, token string
}

// flags adds those that say where the gateway is.
func (c *adminClient) flags(f *pflag.FlagSet) {
	c.token = os.Getenv(tokenVariable)
	f.StringVar(&c.base, "admin", cmp.Or(os.Getenv("LONGPOLE_ADMIN"), "http://127.0.0.1:9901"), "`URL` of the gateway's admin side")
}

// adminGroup makes group the parent of commands that speak to one gateway's admin side. By itself it prints its help.
func adminGroup(group *cobra.Command, commands ...func(*adminClient) *cobra.Command) *cobra.Command {
	var c adminClient
	c.flags(group.PersistentFlags())
	group.Args = onlyCommands
	group.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	for _, command := range commands {
		group.AddCommand(command(&c))
	}
	return group
}

// adminPatience bounds one request to the admin API, which answers from memory.
const adminPatience = 30 * time.Second

// do makes one request. into may be nil.
func (c *adminClient) do(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		data, err := conf.MarshalJSON(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(data)
	}
	base := c.base
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, payload)
	if err != nil {
		return usagef("want a URL as http://127.0.0.1:9901", "--admin: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if fault, ok := errors.AsType[*url.Error](err); ok {
			err = fault.Err // the rest repeats the request
		}
		return &failure{code: exitError, err: fmt.Errorf("no answer from %s: %w", base, err), hint: "is `longpole serve` running, and is --admin its admin address?"}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var p struct{ Error, Hint string }
		if json.Unmarshal(data, &p) != nil || p.Error == "" {
			p.Error = fmt.Sprintf("%s answers %s", base, resp.Status)
		}
		return &failure{code: exitError, err: errors.New(p.Error), hint: cmp.Or(p.Hint, adminHint(resp.StatusCode, path))}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &failure{code: exitError, err: fmt.Errorf("%s does not answer like a gateway: %w", base, err), hint: "--admin is the admin address, not the one that takes calls"}
	}
	return nil
}

// adminHint is the mend of a refusal, where its text does not say it.
func adminHint(status int, path string) string {
	show := "`longpole rollout list` shows the IDs"
	switch {
	case strings.HasPrefix(path, faultsPath):
		show = "`longpole fault list` shows the faults, `longpole routes` the routes"
	case strings.HasPrefix(path, jobsPath):
		show = "`longpole jobs list` shows the queues, `longpole jobs list --dead QUEUE` the IDs"
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "put the gateway's token in " + tokenVariable
	case http.StatusConflict:
		return show
	case http.StatusNotFound:
		return show + "; --admin is the admin address, not the one that takes calls"
	}
	return ""
}
