package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// unmountPatience is how long an interrupted mount tries to leave an empty directory behind.
const unmountPatience = 20 * time.Second

// mountFlags are the options of mount.
type mountFlags struct {
	detach, background bool
	passthrough        bool
	upload             bool
	up                 api.UploadRequest
	expiry, staging    string
	req                api.MountRequest
}

func (a *app) mountCmd() *cobra.Command {
	var f mountFlags
	cmd := &cobra.Command{
		Use:   "mount {[CID] DIR | --upload DIR}",
		Short: "show content as a directory, or have what is put into one uploaded",
		Long: `Mounts the content of a CID at DIR, an empty directory. Without a CID every CID is a name below DIR. A file's CID appears
as DIR/CID, or on a regular file as that file. The first line printed when the mount answers begins with "mounted".

The mount stays until it is unmounted, with holdfast umount, fusermount3 -u or Ctrl-C. --detach returns at once; a daemon
restores such mounts when it starts. Reads of blocks that nobody has fail after --timeout, the rest of the mount stays well.

With --upload DIR is a writable directory. Files are staged in the repo and go to storage providers when they are closed, --protect
says how many of whom may be lost, and --expiry for how long they keep them. holdfast sync waits for that and prints the CID by which
anyone can mount it. It is the same directory again when it is mounted with the same --name.`,
		Example: "  holdfast mount bafy… /mnt/photos\n  holdfast mount --detach bafy… /mnt/photos\n  holdfast mount /mnt/cids && ls /mnt/cids/bafy…\n" +
			"  holdfast mount --detach --upload --protect 4,2 --auto-renew /mnt/up && cp -r ~/project /mnt/up && holdfast sync /mnt/up",
		Args: args(1, 2, "a CID and a directory are"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.req.NoPassthrough = !f.passthrough
			if err := f.uploads(cmd, args); err != nil {
				return err
			}
			err := a.mount(cmd.Context(), cmd, args, f)
			if errors.Is(err, errTerminated) {
				return nil // asked to end, and did
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.detach, "detach", false, "return when the mount answers")
	flags.BoolVar(&f.req.Lazy, "lazy", false, "mount even if nobody has the root now")
	flags.BoolVar(&f.req.AllowOther, "allow-other", false, "let other users in")
	flags.BoolVar(&f.passthrough, "passthrough", true, "let the kernel read complete files by itself")
	flags.BoolVar(&f.upload, "upload", false, "mount a writable directory, whose files storage providers keep")
	flags.StringVar(&f.up.Name, "name", "", "with --upload: of the staging tree (default: the last name of DIR)")
	flags.Var(&f.up.Protect, "protect", "with --upload: any m of each k+m providers may be lost (default 4,2)")
	flags.IntVar(&f.up.Redundancy, "redundancy", 0, "with --upload: providers for each chunk (default 1)")
	flags.StringVar(&f.expiry, "expiry", "30d", "with --upload: how long providers keep what is uploaded")
	flags.BoolVar(&f.up.AutoRenew, "auto-renew", false, "with --upload: renew what is about to expire")
	flags.StringVar(&f.staging, "staging-quota", "", "with --upload: most bytes that may be staged; beyond it uploaded files are kept by providers alone, use --auto-renew; writes are slower then (default: what the disk has)")
	flags.BoolVar(&f.background, "background", false, "")
	flags.MarkHidden("background")
	settingFlags(cmd, "timeout", "readahead", "cache-size", "max-price", "budget", "regions", "temporary-names")
	for _, name := range []string{"regions", "temporary-names"} {
		flags.Lookup(name).Usage = "with --upload: " + flags.Lookup(name).Usage
	}
	return cmd
}

func (a *app) mount(ctx context.Context, cmd *cobra.Command, args []string, f mountFlags) error {
	if err := a.mountRequest(cmd, args, &f.req); err != nil {
		return err
	}
	if f.detach {
		detached, err := a.detachFromDaemon(ctx, cmd, f.req)
		if detached || err != nil {
			return err
		}
		return a.spawnMount(ctx)
	}
	s, err := a.connect(ctx, cmd, slog.LevelWarn)
	if err != nil {
		return err
	}
	if err := ownSettings(cmd, s); err != nil {
		return s.end(ctx, err)
	}
	return a.mountHere(ctx, s, f)
}

// ownSettings refuses what only the process that owns the repo can be told, where that is another.
func ownSettings(cmd *cobra.Command, s *session) error {
	if s.node == nil && cmd.Flags().Changed("regions") {
		return hint.Add(&usageError{errors.New("mount: --regions: the daemon uploads for all its mounts, to providers of its own choice")},
			"start it with --regions, or set regions: in config.yaml")
	}
	return nil
}

// mountHere mounts and stays until the mount is gone.
func (a *app) mountHere(ctx context.Context, s *session, f mountFlags) error {
	m, err := s.Mount(ctx, f.req)
	if err != nil {
		return s.end(ctx, fmt.Errorf("mount: %w", err))
	}
	a.sayMounted(m)
	if f.background {
		if err := a.leaveTerminal(); err != nil {
			return s.end(ctx, err)
		}
	}
	err = s.WaitUnmounted(ctx, m.Dir)
	if ctx.Err() != nil {
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmountPatience)
		defer cancel()
		s.Unmount(patient, m.Dir, s.node != nil) // our own process is about to end
		s.Client.Close()
		return errors.Join(s.stop(canceled()), context.Cause(ctx))
	}
	return s.end(ctx, err)
}

func (a *app) sayMounted(m api.Mount) {
	a.say("mounted %s on %s\n", shown(m), ui.Printable(m.Dir))
	if m.Upload != "" {
		a.say("What is uploaded can be read by the providers that keep it, and by anyone who has its CID.\n")
	}
}

// shown says what a mount shows.
func shown(m api.Mount) string {
	switch {
	case m.Upload != "":
		return "upload directory " + ui.Printable(m.Upload)
	case m.CID == "":
		return "any CID"
	}
	return m.CID
}

// detachFromDaemon leaves the mount to the process that owns the repo already, if there is one.
func (a *app) detachFromDaemon(ctx context.Context, cmd *cobra.Command, req api.MountRequest) (bool, error) {
	dir, err := repo.Path(a.repoFlag)
	if err != nil {
		return false, err
	}
	s, err := join(ctx, repo.SocketPath(dir))
	if errors.Is(err, api.ErrNoNode) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer s.end(ctx, nil)
	if err := ownSettings(cmd, s); err != nil {
		return true, err
	}
	req.Remember = true
	m, err := s.Mount(ctx, req)
	if err != nil {
		return true, endOf(ctx, fmt.Errorf("mount: %w", err))
	}
	a.sayMounted(m)
	return true, nil
}

// mountRequest reads the arguments into req.
func (a *app) mountRequest(cmd *cobra.Command, args []string, req *api.MountRequest) error {
	dir := args[len(args)-1]
	if len(args) == 2 {
		root, err := api.ParseCID(args[0])
		if err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		req.CID = root.String()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	req.Dir = abs
	cfg := repo.Config{}
	if err := a.settings(cmd, &cfg); err != nil { // zero: what the node has
		return err
	}
	if req.Upload != nil {
		req.Upload.TempNames = cfg.TempNames
	}
	req.Timeout, req.Readahead, req.Spending = cfg.Timeout, cfg.Readahead, spendingOf(cmd, cfg)
	return nil
}

func (a *app) mountsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "mounts",
		Short:   "list mounts",
		Long:    "Lists the mounts that the node serves, and those it is to restore but can't.",
		Example: "  holdfast mounts",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			mounts, err := s.Mounts(ctx)
			if err != nil {
				return fmt.Errorf("list mounts: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, mounts)
			}
			return mountTable(mounts).Print(a.out)
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func mountTable(mounts []api.Mount) *ui.Table {
	t := &ui.Table{Heads: []string{"DIR", "STATE", ">READS", ">BYTES", ">ERRORS", "CID"}}
	for _, m := range mounts {
		what := shown(m)
		t.Add(ui.Printable(m.Dir), m.State, fmt.Sprint(m.Reads), ui.Bytes(m.BytesRead), fmt.Sprint(m.Errors), what)
	}
	return t
}
