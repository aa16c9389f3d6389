package main

import (
	_ "embed"

	"github.com/spf13/cobra"
)

// schema is the JSON Schema of the configuration, generated from the Go types by TestSchemaIsCurrent -update.
//
//go:embed schema.json
var schema []byte

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file",
		Long: `Print the JSON Schema (draft 2020-12) of the configuration file, for editors that complete and check YAML by it. A running
gateway serves the same at /schema.json on its admin address. What only the whole file can tell, such as a route's unknown
upstream, is found by longpole validate.`,
		Example: `  longpole schema > longpole.schema.json
  # then, as the first line of longpole.yaml:
  # yaml-language-server: $schema=longpole.schema.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
