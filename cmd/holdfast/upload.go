package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// uploadFlags make no sense without --upload.
var uploadFlags = []string{"name", "protect", "redundancy", "expiry", "auto-renew", "staging-quota", "temporary-names", "regions"}

// uploads makes the request one for an upload directory, if that is asked for.
func (f *mountFlags) uploads(cmd *cobra.Command, args []string) error {
	if !f.upload {
		for _, name := range uploadFlags {
			if cmd.Flags().Changed(name) {
				return hint.Add(&usageError{fmt.Errorf("mount: --%s is for upload directories", name)}, "holdfast mount --upload --%s … DIR", name)
			}
		}
		return nil
	}
	if len(args) != 1 {
		return &usageError{errors.New("mount --upload: a directory alone is wanted")}
	}
	up := f.up
	if up.Name == "" {
		up.Name = nameOf(args[0])
	}
	var err error
	if up.Lifetime, err = repo.ParseDuration(f.expiry); err != nil {
		return &usageError{fmt.Errorf("mount: --expiry: %w", err)}
	}
	if f.staging != "" {
		if up.StagingQuota, err = repo.ParseBytes(f.staging); err != nil {
			return &usageError{fmt.Errorf("mount: --staging-quota: %w", err)}
		}
	}
	f.req.Upload = &up
	return nil
}

func (a *app) syncCmd() *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "sync DIR",
		Short: "wait until an upload directory is with providers",
		Long: `Waits until all that is in an upload directory is with storage providers who have signed for it, and prints the CID of the
directory, that of its manifest, and when the first of the pledges ends. A terminal shows how far that is; what it waits for is told
on standard error. Ctrl-C ends the waiting alone, and so does --timeout, with 1: the upload goes on.`,
		Example: "  cp -r project /mnt/up && holdfast sync /mnt/up\n  holdfast sync --timeout 10m /mnt/up",
		Args:    args(1, 1, "one directory is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("sync: %w", err)
			}
			if timeout < 0 {
				return &usageError{fmt.Errorf("sync: --timeout: %s is less than nothing", timeout)}
			}
			synced, err := a.sync(ctx, s, dir, timeout)
			if err != nil {
				return fmt.Errorf("sync %s: %w", ui.Printable(args[0]), err)
			}
			if asJSON {
				return ui.JSON(a.out, synced)
			}
			fmt.Fprintf(a.out, "root      %s\nmanifest  %s\n", synced.Root, synced.Manifest)
			if synced.Expires != nil {
				fmt.Fprintf(a.out, "expires   %s\n", synced.Expires.Local().Format(time.DateTime))
			}
			return nil
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait (default: as long as it takes)")
	jsonFlag(cmd, &asJSON)
	return cmd
}
