package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/setting"
)

func newValidate() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "validate [-o text|json] FILE",
		Short: "Check a configuration file and report all of its faults",
		Long:  "Check a configuration file and report all of its faults at once, each with its line. Exits 104 when there is one.",
		Args:  minArgs(1, "the configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			cfg, err := loadConfig(args[0])
			if output == "json" {
				return writeFaults(cmd, err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d routes, %d upstreams\n", args[0], len(cfg.Routes), len(cfg.Upstreams))
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// loadConfig reads and checks a file. All faults are in the one error, a line each.
func loadConfig(path string) (gateway.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return gateway.Config{}, &failure{code: exitConfig, err: err, hint: "the smallest file is in the README"}
	}
	cfg, err := gateway.Load(path, data)
	if err != nil {
		n := len(setting.List(err))
		return cfg, &failure{code: exitConfig, err: fmt.Errorf("%s in %s:\n%w", count(n, "fault"), path, err), hint: "`longpole validate FILE` checks without starting"}
	}
	return cfg, nil
}

// count is "1 fault" or "3 faults".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fault is one fault in the JSON form.
type fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

func writeFaults(cmd *cobra.Command, err error) error {
	faults := []fault{}
	var fail *failure
	if errors.As(err, &fail) {
		for _, e := range setting.List(errors.Unwrap(fail.err)) {
			var at *conf.Error
			if errors.As(e, &at) {
				faults = append(faults, fault{at.File, at.Line, at.Column, at.Path, at.Msg})
			} else {
				faults = append(faults, fault{Message: e.Error()})
			}
		}
		if len(faults) == 0 {
			faults = append(faults, fault{Message: fail.Error()})
		}
	}
	if werr := writeJSON(cmd.OutOrStdout(), map[string]any{"valid": err == nil, "faults": faults}); werr != nil {
		return werr
	}
	return err
}
