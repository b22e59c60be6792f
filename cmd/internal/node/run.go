package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// service is a part of the node that runs until its context ends.
type service struct {
	name string
	run  func(context.Context) error
}

// services lists everything that runs, in the order of starting. They stop the other way round, each when the one
// after it has ended.
func (n *Node) services(commands net.Listener, public net.Listener) []service {
	list := []service{
		{"block store", n.store.Run},
		{"exchange", n.runExchange},
		{"payments", n.wallet.accounts.Run},
		{"storage payments", n.wallet.storage.Run},
		{"announcements", n.announce.Run},
		{"sweeps of announcements", n.sweeper.Run},
		{"peers", n.keeper.Run},
		{"uploads", n.uploader.Run},
		{"watch of providers", n.watchProviders},
		{"commands", func(ctx context.Context) error { return n.server.Serve(ctx, commands) }},
		{"metrics", func(ctx context.Context) error { return serveHTTP(ctx, public, n.server.Public()) }},
		{"mounts", n.mounts.Run},
	}
	if n.provider != nil {
		at := slices.IndexFunc(list, func(s service) bool { return s.name == "peers" })
		list = slices.Insert(list, at+1, service{"provider", n.provider.Run})
	}
	return list
}

// runExchange ends when also the network has that the exchange starts.
func (n *Node) runExchange(ctx context.Context) error {
	if err := n.exchange.Run(ctx); err != nil {
		return err
	}
	n.network.Wait()
	return nil
}

// Run works until ctx ends or a part fails, stops everything and closes the repo. It is called once.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.close(), n.cfg.Repo.Close()) }()
	commands, err := api.Listen(repo.SocketPath(n.cfg.Repo.Dir))
	if err != nil {
		return err
	}
	public, err := listenPublic(n.cfg.Settings.MetricsListen)
	if err != nil {
		return errors.Join(err, commands.Close())
	}
	failures := make(chan error, 16)
	var stops []func()
	for _, s := range n.services(commands, public) {
		stops = append(stops, start(ctx, s, failures))
	}
	close(n.ready)
	select {
	case <-ctx.Done():
	case err = <-failures:
		n.log.Error("a part of the node has failed, stopping", "error", err)
		close(n.failed)
	}
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	return err
}

// start runs s apart from ctx's end; stop ends it and waits.
func start(ctx context.Context, s service, failures chan<- error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.run(ctx); err != nil && ctx.Err() == nil {
			failures <- fmt.Errorf("%s: %w", s.name, err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// Ready is closed when the node answers commands.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Failed is closed when a part of the node has failed: Run is about to return why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Drain refuses new commands and waits until the running ones have ended, or ctx has.
func (n *Node) Drain(ctx context.Context) { n.server.Drain(ctx) }

// WaitIdle returns when no mount is left, or with why ctx ended.
func (n *Node) WaitIdle(ctx context.Context) error { return n.mounts.waitIdle(ctx) }

func listenPublic(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("serve metrics on %s: %w", addr, err), "choose another with --metrics-listen")
	}
	return l, nil
}

// serveHTTP serves on l, if there is one, until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	if l == nil {
		return nil
	}
	s := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
