package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

func (a *app) initCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "make the repo: identity, settings, store",
		Long: `Makes the repo with an identity and a commented config.yaml, and chooses the port the node listens on.
Every command does so on first use; init is for choosing settings before.

--network ipfs joins the public network: what you add there can be read by anyone who has its CID.`,
		Example: "  holdfast init\n  holdfast --repo /srv/node init --network ipfs --quota 500GB",
		Args:    args(0, 0, "no argument is"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := repo.Path(a.repoFlag)
			if err != nil {
				return err
			}
			cfg := repo.Defaults()
			if err := a.settings(cmd, &cfg); err != nil {
				return err
			}
			made, err := repo.Init(dir, cfg)
			if err != nil {
				return err
			}
			if made {
				fmt.Fprintf(a.out, "made repo %s\n", dir)
			} else {
				fmt.Fprintf(a.out, "repo %s is there already, nothing changed\n", dir)
			}
			return nil
		},
	}
	settingFlags(cmd, "network", "port", "listen", "bootstrap", "cache-size", "quota", "min-free", "metrics-listen")
	return cmd
}
