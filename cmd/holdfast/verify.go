package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) verifyCmd() *cobra.Command {
	var deep, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify CID",
		Short: "find out which blocks of content are here, at peers, recoverable or lost",
		Long: `Looks for every block of content, in the local store and at peers. Of content that a manifest protects (add --protect), one that
is known here or one that a peer tells of and that proves true, it also says what can be rebuilt from the stripes. --deep reads
every block that is here, and fetches the others. Ends with 1 if anything is lost.`,
		Example: "  holdfast verify bafy…\n  holdfast verify --deep --json bafy…",
		Args:    args(1, 1, "one CID is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			read, err := a.read(cmd, args[0])
			if err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			bar := ui.NewBar(a.err, "verify", 0)
			defer bar.End()
			v, err := s.Verify(ctx, read, deep, func(p api.Progress) { bar.Set(p.Bytes, p.TotalBytes) })
			if err != nil {
				return fmt.Errorf("verify %s: %w", read.Ref, err)
			}
			bar.End()
			if asJSON {
				err = ui.JSON(a.out, v)
			} else {
				err = printVerified(a.out, v)
			}
			if err == nil && v.Data.Lost > 0 {
				err = fmt.Errorf("verify %s: %s lost", read.Ref, ui.Count(v.Data.Lost, "block"))
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read and fetch every block")
	jsonFlag(cmd, &asJSON)
	settingFlags(cmd, readFlags...)
	return cmd
}

func printVerified(w io.Writer, v api.Verified) error {
	fmt.Fprintf(w, "root      %s\n", v.Root)
	if v.Manifest != "" {
		fmt.Fprintf(w, "manifest  %s, any %d of each %d shards may be lost\n", v.Manifest, v.M, v.K+v.M)
	} else {
		fmt.Fprintln(w, "manifest  none is known: what is lost can't be rebuilt")
	}
	fmt.Fprintln(w)
	t := &ui.Table{Heads: []string{"", ">LOCAL", ">REACHABLE", ">RECOVERABLE", ">LOST"}}
	row := func(name string, f api.Found) {
		t.Add(name, number(f.Local), number(f.Reachable), number(f.Recoverable), number(f.Lost))
	}
	row("data", v.Data)
	if v.Manifest != "" {
		row("parity", v.Parity)
	}
	if err := t.Print(w); err != nil {
		return err
	}
	if v.Manifest == "" {
		return nil
	}
	fmt.Fprintf(w, "\n%s, %d weak, %d lost\n", ui.Count(v.Stripes, "stripe"), v.WeakStripes, v.LostStripes)
	if len(v.Problems) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	p := &ui.Table{Heads: []string{">STRIPE", ">BLOCKS", ">RECOVERABLE", ">LOST", ">PARITY LOST"}}
	for _, s := range v.Problems {
		p.Add(number(s.Stripe), strconv.Itoa(s.Blocks), strconv.Itoa(s.Recoverable), strconv.Itoa(len(s.Lost)), fmt.Sprintf("%d of %d", s.LostParity, s.Parity))
	}
	return p.Print(w)
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
