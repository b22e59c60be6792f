package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/node"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// ownerPatience is how long a command waits for a repo whose owner does not answer: it may be starting or ending.
const ownerPatience = 8 * time.Second

// session is a command's connection to the owner of the repo, which may be this process.
type session struct {
	*api.Client
	node  *node.Node // nil: another process
	notes io.Writer
	stop  func(context.Context) error
}

// withNode runs a command's work with a session and ends it.
func (a *app) withNode(work func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		s, err := a.connect(ctx, cmd, slog.LevelError)
		if err != nil {
			return err
		}
		return s.end(ctx, work(ctx, s, cmd, args))
	}
}

// connect finds the owner of the repo or becomes it. level is what a node of this process logs, unless somebody
// asks for another.
func (a *app) connect(ctx context.Context, cmd *cobra.Command, level slog.Level) (*session, error) {
	dir, err := repo.Path(a.repoFlag)
	if err != nil {
		return nil, err
	}
	if err := a.settings(cmd, &repo.Config{}); err != nil { // before anything is touched
		return nil, err
	}
	for giveUp := time.Now().Add(ownerPatience); ; {
		s, err := join(ctx, repo.SocketPath(dir))
		if err == nil || !errors.Is(err, api.ErrNoNode) {
			return s, err
		}
		s, err = a.start(ctx, cmd, dir, false, level)
		if !errors.Is(err, repo.ErrInUse) || time.Now().After(giveUp) {
			return s, err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// join becomes a client of the owner, which then stays for it. An owner that is about to end counts as none.
func join(ctx context.Context, socket string) (*session, error) {
	c, err := api.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	release, err := c.Hold(ctx)
	if err != nil {
		c.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", api.ErrNoNode, err)
	}
	return &session{Client: c, stop: func(context.Context) error { release(); return nil }}, nil
}

// start makes this process the owner of the repo and waits until its node answers.
func (a *app) start(ctx context.Context, cmd *cobra.Command, dir string, daemon bool, level slog.Level) (*session, error) {
	boot := a.logger(level)
	gologshim.SetDefaultHandler(libraryLog{boot.Handler()})
	r, err := repo.Open(dir, boot)
	if err != nil {
		return nil, err
	}
	cfg := r.Config
	if err := a.settings(cmd, &cfg); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if daemon {
		level = cfg.Level()
	}
	n, err := node.Open(ctx, node.Config{Repo: r, Settings: cfg, Daemon: daemon, Version: version, Logger: a.logger(level)})
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	ended := make(chan error, 1)
	run, cancel := context.WithCancel(context.Background()) // the node ends after its clients, not with them
	go func() { ended <- n.Run(run) }()
	s := &session{node: n, notes: a.err, stop: func(ctx context.Context) error {
		n.Drain(ctx)
		cancel()
		return <-ended
	}}
	select {
	case <-n.Ready():
	case err := <-ended:
		cancel()
		return nil, err
	}
	s.Client, err = api.Dial(ctx, repo.SocketPath(dir))
	if err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	return s, nil
}

// end ends the session after work has returned err. A node of this process first lets other commands finish that
// use it, unless ctx has ended.
func (s *session) end(ctx context.Context, err error) error {
	err = endOf(ctx, err)
	if s.node != nil && ctx.Err() == nil {
		s.sayWhyItStays(ctx)
		err = errors.Join(err, s.node.WaitIdle(ctx)) // others may have mounted here
	}
	s.Client.Close()
	return errors.Join(err, s.stop(ctx))
}

// sayWhyItStays tells of the mounts that others have made in this process, which ends with the last of them.
func (s *session) sayWhyItStays(ctx context.Context) {
	mounts, err := s.Mounts(ctx)
	if err != nil {
		return
	}
	for _, m := range mounts {
		if m.State == api.StateMounted {
			fmt.Fprintf(s.notes, "holdfast: done; this process serves the mount on %s and ends with it\n", ui.Printable(m.Dir))
		}
	}
}

// logger writes lines of level and above to standard error.
func (a *app) logger(level slog.Level) *slog.Logger {
	text := a.logLevel
	if text == "" {
		text, _ = a.environ("HOLDFAST_LOG_LEVEL")
	}
	if text != "" {
		level.UnmarshalText([]byte(text))
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// libraryLog gives what libp2p logs to the node's log, as details: what matters of it comes back as errors.
type libraryLog struct{ slog.Handler }

// Enabled says whether details are wanted.
func (l libraryLog) Enabled(ctx context.Context, _ slog.Level) bool {
	return l.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle writes r as a detail.
func (l libraryLog) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

// WithAttrs keeps the level.
func (l libraryLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return libraryLog{l.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the level.
func (l libraryLog) WithGroup(name string) slog.Handler { return libraryLog{l.Handler.WithGroup(name)} }

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
