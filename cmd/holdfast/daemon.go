package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

func (a *app) daemonCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "run the node: serve peers, commands and mounts",
		Long: `Runs the node until SIGTERM or Ctrl-C: it serves what the repo has, stays connected to remembered peers, restores its
mounts, and does the work of other commands.

Settings come from flags, then HOLDFAST_* variables, then config.yaml in the repo, then defaults.`,
		Example: "  holdfast daemon\n  holdfast daemon --network ipfs --quota 500GB --metrics-listen 127.0.0.1:9100",
		Args:    args(0, 0, "no argument is"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.becomeDaemon(cmd.Context(), cmd)
			if err == nil {
				err = a.serveUntil(cmd.Context(), s)
			}
			if errors.Is(endOf(cmd.Context(), err), errTerminated) {
				return nil // asked to end, and did
			}
			return err
		},
	}
	var all []string
	for _, k := range repo.Keys() {
		if k.Name != "log-level" {
			all = append(all, k.Name)
		}
	}
	settingFlags(cmd, all...)
	return cmd
}

// becomeDaemon takes the repo. It waits for commands that use it, but not for another daemon.
func (a *app) becomeDaemon(ctx context.Context, cmd *cobra.Command) (*session, error) {
	dir, err := repo.Path(a.repoFlag)
	if err != nil {
		return nil, err
	}
	if err := a.settings(cmd, &repo.Config{}); err != nil { // before anything is touched
		return nil, err
	}
	for giveUp := time.Now().Add(ownerPatience); ; {
		s, err := a.start(ctx, cmd, dir, true, slog.LevelInfo)
		if !errors.Is(err, repo.ErrInUse) || time.Now().After(giveUp) || ownerStays(ctx, dir) {
			return s, err
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// ownerStays says whether the repo's owner is a daemon.
func ownerStays(ctx context.Context, dir string) bool {
	c, err := api.Dial(ctx, repo.SocketPath(dir))
	if err != nil {
		return false
	}
	defer c.Close()
	id, err := c.ID(ctx)
	return err == nil && id.Daemon
}

// serveUntil says where the node can be found and lets it run.
func (a *app) serveUntil(ctx context.Context, s *session) error {
	id, err := s.ID(ctx)
	if err != nil {
		return s.end(ctx, err)
	}
	a.say("peer %s\n", id.ID)
	for _, addr := range id.Addresses {
		a.say("listening on %s\n", addr)
	}
	a.say("ready\n")
	select {
	case <-ctx.Done():
	case <-s.node.Failed():
	}
	s.Client.Close()
	return errors.Join(s.stop(canceled()), context.Cause(ctx))
}

// canceled is a context that has ended: nothing is waited for.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
