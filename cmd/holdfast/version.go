package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// version is what this build calls itself.
const version = "0.1.0"

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Long:  "Prints the version of the program and the repo format it writes.",
		Args:  args(0, 0, "no argument is"),
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(a.out, "holdfast %s, repo format %d, %s %s/%s\n", version, repo.FormatVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
