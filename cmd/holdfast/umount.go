package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) umountCmd() *cobra.Command {
	var force, wait bool
	cmd := &cobra.Command{
		Use:   "umount DIR…",
		Short: "end mounts",
		Long: `Ends mounts of this node, and mounts that a killed node left behind. Reads that wait for the network fail at once. A mount
in use otherwise stays; --force takes it out of the tree, and programs keep what they have open.

Of an upload directory it says what storage providers have not signed for yet: a daemon goes on with that, also after a restart.
--wait first waits until all is with providers; Ctrl-C ends the waiting and leaves the directory mounted.`,
		Example: "  holdfast umount /mnt/photos\n  holdfast umount --wait /mnt/up",
		Args:    args(1, -1, "at least one directory is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			for _, dir := range args {
				abs, err := filepath.Abs(dir)
				if err == nil {
					err = a.umount(ctx, s, abs, force, wait)
				}
				if err != nil {
					return fmt.Errorf("umount: %w", err)
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also if programs use it")
	cmd.Flags().BoolVar(&wait, "wait", false, "of an upload directory: when all is with providers")
	return cmd
}

// umount ends one mount, and says what of it is still to be uploaded.
func (a *app) umount(ctx context.Context, s *session, dir string, force, wait bool) error {
	pending, err := s.Pending(ctx, dir)
	if err == nil && wait && pending.Upload {
		if err := a.waitSynced(ctx, s, dir); err != nil {
			return err
		}
		pending, err = s.Pending(ctx, dir)
	}
	if err != nil {
		fmt.Fprintf(a.err, "holdfast: what is still to be uploaded of %s is not known: %s\n", ui.Printable(dir), oneLine(err.Error()))
		pending = api.Pending{}
	}
	if err := s.Unmount(ctx, dir, force); err != nil {
		return err
	}
	if what := pendingText(pending); what != "" {
		a.say("still to be uploaded from %s: %s\n", ui.Printable(dir), what)
		if pending.GoesOn {
			a.say("the daemon goes on with that\n")
		} else {
			a.say("that goes on when a daemon runs: holdfast daemon\n")
		}
	}
	return nil
}

// pendingText says what providers have not signed for; empty: nothing.
func pendingText(p api.Pending) string {
	switch {
	case p.More:
		return fmt.Sprintf("more than %s, %s", ui.Count(p.Files, "file"), ui.Bytes(p.Bytes))
	case p.Files > 0:
		return fmt.Sprintf("%s, %s", ui.Count(p.Files, "file"), ui.Bytes(p.Bytes))
	case p.Rest:
		return "the directory as it is now; all its files are with providers"
	}
	return ""
}

// waitSynced returns when all that is in an upload directory is with providers.
func (a *app) waitSynced(ctx context.Context, s *session, dir string) error {
	_, err := a.sync(ctx, s, dir, 0)
	if ctx.Err() != nil {
		fmt.Fprintf(a.err, "holdfast: %s stays mounted, and goes on to be uploaded\n", ui.Printable(dir))
	}
	return err
}
