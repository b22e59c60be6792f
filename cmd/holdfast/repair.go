package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// repaired is what a repair has done, at providers and here.
type repaired struct {
	*api.Repaired                    // nil: providers alone were looked after
	Links         *api.RepairedLinks `json:"links,omitempty"` // nil: nothing of it was uploaded
}

func (a *app) repairCmd() *cobra.Command {
	var asJSON, links bool
	cmd := &cobra.Command{
		Use:   "repair {CID | DIR}",
		Short: "make protected content whole again, here and at providers",
		Long: `Makes content that a manifest protects whole again. What storage providers have signed for is audited now: chunks of those who
have lost them or don't answer go to others, rebuilt where they are not here, and what ends soon is renewed. Then every block is
brought into the local store, fetched from peers or rebuilt from its stripe, parity that nobody has is made anew, and all of it is
kept until it is unpinned. Ends with 1 if something is lost for good, or not all is kept as it should be.

--links leaves the local store alone; so does the directory where an upload directory is mounted, in place of a CID.`,
		Example: "  holdfast repair bafy…\n  holdfast repair --links bafy…\n  holdfast repair /mnt/up",
		Args:    args(1, 1, "one CID, or one upload directory is"),
		RunE: a.withNode(func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
			var out repaired
			err := a.repair(ctx, s, cmd, args[0], links, &out)
			if asJSON && (out.Links != nil || out.Repaired != nil) {
				if jerr := ui.JSON(a.out, out); err == nil {
					err = jerr
				}
			} else {
				a.printRepaired(out)
			}
			if err != nil {
				return fmt.Errorf("repair %s: %w", ui.Printable(args[0]), err)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&links, "links", false, "look after what providers keep alone")
	jsonFlag(cmd, &asJSON)
	settingFlags(cmd, readFlags...)
	return cmd
}

// repair repairs what arg names, and notes in out what was done even where not all could be.
func (a *app) repair(ctx context.Context, s *session, cmd *cobra.Command, arg string, linksAlone bool, out *repaired) error {
	read, noCID := a.read(cmd, arg)
	of := api.UploadRef{Name: read.Ref.String()}
	if noCID != nil {
		dir, err := filepath.Abs(arg)
		if err != nil {
			return err
		}
		of, linksAlone = api.UploadRef{Dir: dir}, true
	}
	l, err := s.RepairUploads(ctx, of)
	switch {
	case err == nil:
		out.Links = &l
	case api.CodeOf(err) == api.CodeNotFound && noCID != nil && !strings.Contains(arg, "/"):
		return noCID // it does not look like a directory either
	case api.CodeOf(err) != api.CodeNotFound || linksAlone:
		return err
	}
	if !linksAlone {
		bar := ui.NewBar(a.err, "repair", 0)
		defer bar.End()
		r, err := s.Repair(ctx, read, func(p api.Progress) { bar.Set(p.Bytes, p.TotalBytes) })
		if err != nil {
			return err
		}
		if out.Repaired = &r; r.Lost > 0 {
			return fmt.Errorf("%s lost", ui.Count(r.Lost, "block"))
		}
	}
	if out.Links != nil && (l.Waiting != "" || l.Unheard > 0) {
		return fmt.Errorf("%s: not all is kept as it should be", linksLeft(l))
	}
	return nil
}

// linksLeft says what a repair of links has left undone.
func linksLeft(l api.RepairedLinks) string {
	if l.Waiting != "" {
		return l.Waiting
	}
	return ui.Count(uint64(l.Unheard), "audit") + " not answered yet"
}

func (a *app) printRepaired(r repaired) {
	if l := r.Links; l != nil {
		fmt.Fprintf(a.out, "%s at providers: %d lost, %d placed anew, %d renewed\n", ui.Count(uint64(l.Links), "chunk"), len(l.Lost), l.Placed, l.Renewed)
		for _, one := range l.Lost {
			fmt.Fprintf(a.out, "  lost %s at %s: %s\n", one.Chunk, one.Provider, ui.Printable(one.Reason))
		}
	}
	if c := r.Repaired; c != nil {
		fmt.Fprintf(a.out, "%s: %d fetched, %d rebuilt, %s made anew\n", ui.Count(c.Blocks, "block"), c.Fetched, c.Rebuilt, ui.Count(c.Parity, "parity shard"))
	}
}
