package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) retryUploadCmd() *cobra.Command {
	cmd := a.changeUploadCmd("retry", (*api.Client).RetryUpload, func(w io.Writer, r api.UploadsChanged) {
		fmt.Fprintf(w, "%s taken up again\n", ui.Count(uint64(r.Changed), "upload"))
	})
	cmd.Short = "take uploads up at once"
	cmd.Long = `Takes a file in an upload directory up at once, or all files below a directory in it, or what add --upload has given to the
uploader, by its CID or name. Pauses after failures are forgotten, and providers that were silent or refused may be asked again; one
that lied stays out. What was cancelled or has expired begins anew.`
	return cmd
}

func (a *app) cancelUploadCmd() *cobra.Command {
	cmd := a.changeUploadCmd("cancel", (*api.Client).CancelUpload, func(w io.Writer, r api.UploadsChanged) {
		fmt.Fprintf(w, "%s cancelled\n", ui.Count(uint64(r.Changed), "upload"))
		if r.Left > 0 {
			fmt.Fprintf(w, "%s left alone, as uploaded, cancelled or still being written\n", ui.Count(uint64(r.Left), "file"))
		}
	})
	cmd.Short = "end uploads"
	cmd.Long = `Ends the upload of a file in an upload directory, or of all files below a directory in it that are not uploaded yet, or of what
add --upload has given to the uploader, by its CID or name. Providers release what nothing else needs. A cancelled file stays in the
directory, in state failed, but not in what is synced, until it is retried or written again. To end the keeping of a file that is
uploaded, remove it.`
	return cmd
}

// changeUploadCmd is a command that changes how uploads go on.
func (a *app) changeUploadCmd(name string, change func(*api.Client, context.Context, api.UploadRef) (api.UploadsChanged, error), say func(io.Writer, api.UploadsChanged)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name + " {DIR [PATH] | CID | NAME}",
		Example: "  holdfast uploads " + name + " /mnt/up project/video.mkv\n  holdfast uploads " + name + " bafy…",
		Args:    args(1, 2, "an upload directory and a path in it, or one CID or name are"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			of := api.UploadRef{Name: args[0]}
			if len(args) == 2 || isDirectory(args[0]) {
				dir, err := filepath.Abs(args[0])
				if err != nil {
					return fmt.Errorf("%s upload: %w", name, err)
				}
				of = api.UploadRef{Dir: dir, Path: strings.Join(args[1:], "")}
			}
			changed, err := change(s.Client, ctx, of)
			if err != nil {
				return fmt.Errorf("%s upload: %w", name, err)
			}
			if asJSON {
				return ui.JSON(a.out, changed)
			}
			say(a.out, changed)
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// isDirectory says whether an argument is a path, and of a directory.
func isDirectory(arg string) bool {
	if !strings.ContainsRune(arg, filepath.Separator) {
		return false
	}
	info, err := os.Stat(arg)
	return err == nil && info.IsDir()
}
