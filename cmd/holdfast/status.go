package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "the node on one screen",
		Long:    "Prints store, cache, network and mounts of the node on one screen.",
		Example: "  holdfast status\n  watch holdfast status",
		Args:    args(0, 0, "no argument is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, _ []string) error {
			st, err := s.Status(ctx)
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if asJSON {
				return ui.JSON(a.out, st)
			}
			printStatus(a.out, st)
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func printStatus(w io.Writer, st api.Status) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	role := "for this command alone"
	if st.ID.Daemon {
		role = "daemon"
	}
	line("node", "%s, pid %d, %s, up %s", st.ID.Version, st.ID.Pid, role, time.Duration(st.Uptime*1e9).Round(time.Second))
	line("repo", "%s", ui.Printable(st.ID.Repo))
	line("peer", "%s", st.ID.ID)
	for _, addr := range st.ID.Addresses {
		line("", "%s", addr)
	}
	line("store", "%s of %s, %s, %s pinned under %s", ui.Bytes(st.Store.UsedBytes), ui.Bytes(st.Store.QuotaBytes),
		ui.Count(st.Store.Blocks, "block"), ui.Bytes(st.Store.PinnedBytes), ui.Count(uint64(st.Pins), "root"))
	if st.Store.Corruptions > 0 {
		line("", "%s found damaged on disk and dropped", ui.Count(st.Store.Corruptions, "block"))
	}
	line("memory", "%s of %s for blocks, %s of at most %s in all", ui.Bytes(st.Cache.UsedBytes), ui.Bytes(st.Cache.MaxBytes),
		ui.Bytes(st.Memory.HeapBytes), ui.Bytes(st.Memory.LimitBytes))
	line("network", "%s, %s, %s open", st.ID.Network, ui.Count(uint64(st.Peers), "peer"), ui.Count(st.Exchange.Wants, "want"))
	line("received", "%s, %s", ui.Bytes(st.Exchange.BytesIn), ui.Count(st.Exchange.BlocksIn, "block"))
	line("sent", "%s, %s", ui.Bytes(st.Exchange.BytesOut), ui.Count(st.Exchange.BlocksOut, "block"))
	if r := st.Recovery; r.Stripes > 0 || r.Active > 0 {
		line("rebuilt", "%s, %s of %s", ui.Bytes(r.Bytes), ui.Count(r.Blocks, "lost block"), ui.Count(r.Stripes, "stripe"))
	}
	if m := st.Money; m.Price > 0 || m.Earned > 0 {
		line("price", "%d for a MiB, %d earned of %d charged", m.Price, m.Earned, m.Charged)
	}
	if m := st.Money; m.MaxPrice > 0 || m.Spent > 0 || m.Today > 0 {
		line("spending", "at most %d for a MiB and %d for a root, %s; %d spent today", m.MaxPrice, m.Budget, dayBudget(m.DayBudget), m.Today)
		for _, d := range m.Datasets {
			line("", "%s: %d of %d, at most %d for a MiB", d.CID, d.Spent, d.Budget, d.MaxPrice)
		}
	}
	if a := st.Announce; a.Sweeping || a.Pending > 0 {
		line("announcing", "%s blocks, %d done, %d new ones wait, %s", a.Strategy, a.Swept, a.Pending, ui.Count(a.Failed, "failure"))
	}
	if u := st.Storage; len(u.Files) > 0 {
		line("uploads", "%s signed for, %d on their way, %s waiting; %d of %d providers fit, networks: %s", ui.Count(uint64(u.Links), "chunk"),
			u.Open, ui.Count(uint64(u.Waiting), "chunk"), u.Fit, u.Providers, u.Networks)
	}
	for _, u := range st.Storage.Unmounted {
		line("uploading", "%s, which is not mounted: %s to go, %s", ui.Printable(u.Name), bytesText(u.Bytes-u.Done), oneLine(u.Text))
	}
	if u := st.Storage; u.Provider {
		line("provider", "%s of %s, %s kept for others", ui.Bytes(uint64(max(0, u.UsedBytes))), ui.Bytes(uint64(u.QuotaBytes)), ui.Count(uint64(u.Chunks), "chunk"))
	}
	if st.Exchange.Queued > 0 {
		line("announce", "%s to do", ui.Count(st.Exchange.Queued, "announcement"))
	}
	if len(st.Mounts) > 0 {
		fmt.Fprintln(w)
		mountTable(st.Mounts).Print(w)
	}
}

func dayBudget(n uint64) string {
	if n == 0 {
		return "no more bounds a day"
	}
	return fmt.Sprintf("%d a day", n)
}
