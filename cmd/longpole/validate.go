package main

import (
	"errors"
	"fmt"
	"io/fs"
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
		Long: `Check a configuration file and report all of its faults at once, each as file:line:column. Nothing is started. The
certificates that the file names are read: one that does not match its key, or that is not valid now, is a fault. What is
allowed but probably not meant, such as an upstream that nothing uses, is a warning.
Exits 0 when the file is valid, 104 when it is not.`,
		Example: `  longpole validate longpole.yaml
  longpole validate -o json longpole.yaml | jq '.faults[].line'`,
		Args: oneArg("the configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			cfg, err := loadConfig(args[0])
			if err == nil {
				err = checkFiles(args[0], cfg)
			}
			var doubts []*conf.Error
			if err == nil {
				doubts = suspicions(args[0], cfg)
			}
			if output == "json" {
				return writeFaults(cmd, args[0], doubts, err)
			}
			if err != nil {
				return err
			}
			for _, d := range doubts {
				fmt.Fprintf(cmd.ErrOrStderr(), "longpole: warning: %v\n", d)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %s, %s\n", args[0], count(len(cfg.Routes), "route"), count(len(cfg.Upstreams), "upstream"))
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`FORMAT`: text or json")
	return cmd
}

// loadConfig reads and checks a file. All faults are in the one error, a line each.
func loadConfig(path string) (gateway.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return gateway.Config{}, &failure{code: exitConfig, err: err, hint: smallestConfig}
	}
	cfg, err := gateway.Load(path, data)
	if err != nil {
		return cfg, faulty(path, err, "")
	}
	return cfg, nil
}

const smallestConfig = "the smallest configuration is in the README"

// faulty is the error for a file with faults.
func faulty(path string, faults error, hint string) error {
	return &failure{code: exitConfig, err: fmt.Errorf("%s in %s:\n%w", count(len(setting.List(faults)), "fault"), path, faults), hint: hint}
}

// verdict is the JSON form.
type verdict struct {
	Valid  bool     `json:"valid"`
	Faults []placed `json:"faults"` // in the order of the file

	Warnings []placed `json:"warnings,omitempty"` // of a valid file
}

// placed is one fault in the JSON form.
type placed struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

func place(e *conf.Error) placed { return placed{e.File, e.Line, e.Column, e.Path, e.Msg} }

// writeFaults writes the verdict on a file. Standard error then has its number of faults only.
func writeFaults(cmd *cobra.Command, path string, doubts []*conf.Error, err error) error {
	faults := []placed{}
	var unreadable *fs.PathError
	if errors.As(err, &unreadable) {
		faults = append(faults, placed{File: path, Message: unreadable.Error()})
	} else if err != nil {
		for _, e := range setting.List(errors.Unwrap(errors.Unwrap(err))) {
			if at, ok := errors.AsType[*conf.Error](e); ok {
				faults = append(faults, place(at))
			} else {
				faults = append(faults, placed{File: path, Message: e.Error()})
			}
		}
	}
	v := verdict{Valid: err == nil, Faults: faults}
	for _, d := range doubts {
		v.Warnings = append(v.Warnings, place(d))
	}
	if werr := writeJSON(cmd.OutOrStdout(), v); werr != nil {
		return werr
	}
	if err == nil || unreadable != nil {
		return err
	}
	return &failure{code: exitConfig, err: fmt.Errorf("%s in %s", count(len(faults), "fault"), path)}
}
