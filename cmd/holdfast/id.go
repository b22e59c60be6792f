package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) idCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "id",
		Short:   "the node's peer ID and addresses",
		Long:    "Prints who this node is and the multiaddrs it can be reached at: what others give to holdfast connect.",
		Example: "  holdfast id\n  holdfast connect \"$(ssh other holdfast id --json | jq -r .addresses[0])\"",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			id, err := s.ID(ctx)
			if err != nil {
				return fmt.Errorf("id: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, id)
			}
			fmt.Fprintln(a.out, id.ID)
			for _, addr := range id.Addresses {
				fmt.Fprintln(a.out, addr)
			}
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func jsonFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "json", false, "print JSON")
}
