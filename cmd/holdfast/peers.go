package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) connectCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "connect MULTIADDR…",
		Short: "dial peers and stay connected to them",
		Long: `Dials peers by their multiaddrs, which end in /p2p/ID. They are remembered, and dialled again whenever the connection is
lost and when the node starts: also those that do not answer now. holdfast peers --forget ID ends that.`,
		Example: "  holdfast connect /ip4/127.0.0.1/tcp/41211/p2p/12D3KooW…",
		Args:    args(1, -1, "at least one multiaddr is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			peers, err := s.Connect(ctx, args)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, peers)
			}
			for _, p := range peers {
				fmt.Fprintf(a.out, "connected to %s\n", p.ID)
			}
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) peersCmd() *cobra.Command {
	var asJSON bool
	var forget string
	cmd := &cobra.Command{
		Use:     "peers",
		Short:   "list connected and remembered peers",
		Long:    "Lists the peers the node is connected to or remembers, with what went over the network.",
		Example: "  holdfast peers\n  holdfast peers --forget 12D3KooW…",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			if forget != "" {
				if err := s.Forget(ctx, forget); err != nil {
					return fmt.Errorf("forget peer %s: %w", forget, err)
				}
				return nil
			}
			peers, err := s.Peers(ctx)
			if err != nil {
				return fmt.Errorf("list peers: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, peers)
			}
			return peerTable(peers).Print(a.out)
		}),
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&forget, "forget", "", "stay connected to this peer no longer")
	return cmd
}

func peerTable(peers []api.Peer) *ui.Table {
	t := &ui.Table{Heads: []string{"PEER", "STATE", ">LATENCY", ">RECEIVED", ">PRICE", "ADDRESS"}}
	for _, p := range peers {
		state := "connected"
		if !p.Connected {
			state = "not connected"
		}
		if p.Remembered {
			state += ", remembered"
		}
		if p.Banned > 0 {
			state += fmt.Sprintf(", banned for %s more", time.Duration(p.Banned*1e9).Round(time.Second))
			if p.Why != "" {
				state += ": " + ui.Printable(p.Why)
			}
		}
		latency := "-"
		if p.LatencyMS > 0 {
			latency = fmt.Sprintf("%.1f ms", p.LatencyMS)
		}
		t.Add(p.ID, state, latency, ui.Bytes(p.BytesIn), strconv.FormatUint(p.Price, 10), strings.Join(p.Addresses, " "))
	}
	return t
}
