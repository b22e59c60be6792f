package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

func (a *app) uploadsCmd() *cobra.Command {
	var asJSON, groups, all bool
	cmd := &cobra.Command{
		Use:   "uploads [DIR [PATH]]",
		Short: "list what storage providers are to keep",
		Long: `Lists upload directories, mounted or not, and what add --upload has given to the uploader: how much of it, all copies and parity
counted, is with providers who have signed for it, how much is not, and why. --groups lists the parts that directories are uploaded in.

With DIR, where an upload directory is mounted, or its name, lists the files in it that are not uploaded, as they are come upon, or
those at or below PATH: the state of each, how much of it is with providers, and what it waits for. --all lists all files.`,
		Example: "  holdfast uploads\n  holdfast uploads /mnt/up\n  holdfast uploads --all --json /mnt/up project",
		Args:    args(0, 2, "no argument, or an upload directory and perhaps a path in it are"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
			var err error
			switch {
			case len(args) > 0 && groups:
				err = &usageError{fmt.Errorf("--groups is for all directories, without DIR")}
			case len(args) > 0:
				err = a.listFiles(ctx, s, args, all, asJSON)
			case all:
				err = &usageError{fmt.Errorf("--all lists the files in DIR, which is missing")}
			default:
				err = a.listUploads(ctx, s, groups, asJSON)
			}
			if err != nil {
				return fmt.Errorf("list uploads: %w", err)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&groups, "groups", false, "list the parts of directories")
	cmd.Flags().BoolVar(&all, "all", false, "list also files that are uploaded")
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(a.retryUploadCmd(), a.cancelUploadCmd())
	return cmd
}

func (a *app) listUploads(ctx context.Context, s *session, groups, asJSON bool) error {
	all, err := s.Uploads(ctx, groups)
	if err != nil {
		return err
	}
	if asJSON {
		return ui.JSON(a.out, all)
	}
	if groups {
		return groupTable(all).Print(a.out)
	}
	return uploadTable(all).Print(a.out)
}

func uploadTable(all []api.Upload) *ui.Table {
	t := &ui.Table{Heads: []string{"NAME", "MOUNTED", ">FILES", ">WAITING", ">SIGNED FOR", "EXPIRES", "STATE"}}
	for _, u := range all {
		mounted, files := "-", "-"
		if d := u.Directory; d != nil {
			if mounted = "not mounted"; d.Dir != "" {
				mounted = ui.Printable(d.Dir)
			}
			if files = strconv.FormatUint(d.Files, 10); d.More {
				files = ">" + files
			}
		}
		t.Add(ui.Printable(u.Name), mounted, files, bytesText(u.Bytes-u.Done), bytesText(u.Done), expiresText(u), oneLine(u.Text))
	}
	return t
}

func groupTable(all []api.Upload) *ui.Table {
	t := &ui.Table{Heads: []string{"NAME", ">SIGNED FOR", ">OF", "EXPIRES", "STATE"}}
	for _, u := range all {
		t.Add(ui.Printable(u.Name), bytesText(u.Done), bytesText(u.Bytes), expiresText(u), oneLine(u.Text))
	}
	return t
}

func bytesText(n int64) string { return ui.Bytes(uint64(max(0, n))) }

func expiresText(u api.Upload) string {
	if u.Expiry == nil {
		return "-"
	}
	return u.Expiry.Local().Format(time.DateTime)
}

// listFiles prints the files of an upload directory as they come: there may be a million.
func (a *app) listFiles(ctx context.Context, s *session, args []string, all, asJSON bool) error {
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	of := api.UploadFilesRequest{Dir: dir, All: all}
	if !strings.Contains(args[0], "/") {
		of.Name = args[0]
	}
	if len(args) > 1 {
		of.Path = args[1]
	}
	list := &fileList{out: bufio.NewWriterSize(a.out, 32<<10), json: asJSON, flushed: time.Now()}
	for f, err := range s.UploadFiles(ctx, of) {
		if err == nil {
			err = list.add(f)
		}
		if err != nil {
			list.out.Flush()
			return err
		}
	}
	return list.end()
}

// listedEvery is how long a line may wait for others to be printed with.
const listedEvery = 100 * time.Millisecond

// fileList prints files, and keeps none of them.
type fileList struct {
	out     *bufio.Writer
	json    bool
	n       int
	flushed time.Time
}

func (l *fileList) add(f api.UploadFile) (err error) {
	if l.json {
		err = l.addJSON(f)
	} else {
		err = printFile(l.out, f)
	}
	l.n++
	if err == nil && time.Since(l.flushed) > listedEvery {
		err, l.flushed = l.out.Flush(), time.Now()
	}
	return err
}

// addJSON prints an element of an array, as [ui.JSON] does.
func (l *fileList) addJSON(f api.UploadFile) error {
	before := ",\n  "
	if l.n == 0 {
		before = "[\n  "
	}
	l.out.WriteString(before)
	b := &strings.Builder{}
	e := json.NewEncoder(b)
	e.SetIndent("  ", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil {
		return err
	}
	_, err := l.out.WriteString(strings.TrimSuffix(b.String(), "\n"))
	return err
}

// printFile prints a line: what is at most so wide first, then the path, and why it is not uploaded.
func printFile(w io.Writer, f api.UploadFile) error {
	line := fmt.Sprintf("%-9s  %9s  %-22s  %s", f.State, bytesText(f.Bytes), f.Progress, ui.Printable(f.Path))
	if f.Reason != "" {
		line += "  (" + oneLine(f.Reason) + ")"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

func (l *fileList) end() error {
	switch {
	case l.json && l.n == 0:
		l.out.WriteString("[]\n")
	case l.json:
		l.out.WriteString("\n]\n")
	}
	return l.out.Flush()
}
