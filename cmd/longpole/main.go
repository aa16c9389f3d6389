// Command longpole finds the long pole in a distributed system's latency, cuts it, and proves that it stayed cut.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// The exit codes, as `longpole --help` lists them.
const (
	exitError        = 1
	exitUsage        = 2
	exitAborted      = 97
	exitInconclusive = 98
	exitThreshold    = 99
	exitConfig       = 104
)

// failure is an error with the exit code that it means and, where we know the mend, a hint.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fail := &failure{code: exitError, err: err}
	errors.As(err, &fail)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fail = &failure{code: exitAborted, err: errors.New("interrupted")}
	}
	fmt.Fprintf(stderr, "longpole: error: %s\n", plain(fail.err))
	if fail.hint != "" {
		fmt.Fprintf(stderr, "longpole: hint: %s\n", fail.hint)
	}
	return fail.code
}

// plain is the text of an error without the package that it begins with, which means nothing to who reads it.
func plain(err error) string {
	text := err.Error()
	for _, name := range []string{"ingest", "rollout", "gateway", "conf", "lab", "load", "fault", "offload", "slo", "interop", "fleet", "store", "servers"} {
		text = strings.TrimPrefix(text, name+": ")
	}
	return text
}

const rootLong = `Longpole finds the long pole in a distributed system's latency, cuts it, and proves that it stayed cut.

  longpole demo                          see the whole loop on an embedded system, about 4 minutes
  longpole diagnose traces/              find the long pole in your own trace files
  longpole serve --config longpole.yaml  put it in the path of your traffic

Data goes to standard output, messages to standard error.
Exit codes:
  0    done
  1    error
  2    the command was called wrongly
  97   aborted
  98   inconclusive
  99   a threshold failed, as when a rollout was rolled back
  104  invalid configuration`

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "longpole",
		Short:         "Find the long pole in a distributed system's latency, cut it, and prove that it stayed cut",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          onlyCommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure{code: exitUsage, err: err, hint: fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
	})
	root.AddCommand(newDemo(), newServe(), newDiagnose(), newCriticalPath(), newRollout(), newValidate(), newSchema(), newRoutes(), newTop(), newFault(), newKill(), newLoad(), newCompare(), newProbe(), newWhatIf(), newBench(), newJobs(), newLab(), newReview(), newSLO(), newVersion())
	root.SetHelpCommand(newHelp())
	plainUsage(root)
	return root
}

// onlyCommands lets nothing follow a group of commands but one of them.
func onlyCommands(group *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownCommand(group, args[0])
}

// unknownCommand is what was asked for below parent and is not there, with what was perhaps meant.
func unknownCommand(parent *cobra.Command, name string) error {
	hint := fmt.Sprintf("see `%s --help` for the commands", parent.CommandPath())
	for distance := range 3 {
		parent.SuggestionsMinimumDistance = distance
		if near := parent.SuggestionsFor(name); len(near) > 0 {
			hint = fmt.Sprintf("did you mean `%s %s`?", parent.CommandPath(), near[0])
			break
		}
	}
	return usagef(hint, "unknown command %q", parent.CommandPath()+" "+name)
}

// plainUsage keeps cobra from adding [flags] to the usage lines that name theirs.
func plainUsage(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = strings.Contains(cmd.Use, "-") || !cmd.HasAvailableFlags()
	for _, c := range cmd.Commands() {
		plainUsage(c)
	}
}

// newHelp is cobra's help command, except that it refuses a command that is not there.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print what a command does and takes",
		RunE: func(cmd *cobra.Command, args []string) error {
			at, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(at, rest[0])
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "longpole", version)
			return err
		},
	}
}

// usagef is a mistake in how the program was called.
func usagef(hint, format string, a ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, a...), hint: hint}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef(fmt.Sprintf("see `%s --help`", cmd.CommandPath()), "%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
}

// maxOne lets one argument follow, or none.
func maxOne(cmd *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return usagef(fmt.Sprintf("see `%s --help`", cmd.CommandPath()), "%s takes one argument at most, but got %q", cmd.CommandPath(), args)
}

// oneArg asks for exactly one argument, called what in the message.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return maxOne(cmd, args)
		}
		return minArgs(1, what)(cmd, args)
	}
}

// minArgs asks for at least n arguments, called what in the message.
func minArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return usagef(fmt.Sprintf("see `%s --help`", cmd.CommandPath()), "%s needs %s", cmd.CommandPath(), what)
	}
}
