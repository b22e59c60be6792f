package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// What a link is in `holdfast links`.
const (
	linkSigned = "signed"
	linkFailed = "failed"
)

// statesFor is how long the files' states are asked for at a time.
const statesFor = 50 * time.Millisecond

func thousands(n int64) string { return humanize.Comma(n) }

// kept is what a provider keeps for the writer, or is to.
type kept struct {
	links, signed      int
	bytes, signedBytes int64
	price, paid        uint64
}

// keptBy sums up links by provider.
func keptBy(links []api.Link) map[string]kept {
	all := make(map[string]kept)
	for _, l := range links {
		if l.State == linkFailed {
			continue
		}
		k := all[l.Provider]
		k.links, k.bytes = k.links+1, k.bytes+l.Bytes
		if l.State == linkSigned {
			k.signed, k.signedBytes, k.price = k.signed+1, k.signedBytes+l.Bytes, k.price+l.Price
		}
		if l.Paid {
			k.paid += l.Price
		}
		all[l.Provider] = k
	}
	return all
}

// placeFiles waits until providers have signed for everything, and were paid.
func (d *demo) placeFiles(ctx context.Context) error {
	d.act("Providers sign for it")
	states := newFileStates(d)
	err := d.live(ctx, "holdfast sync up", func(ctx context.Context) []gauge { return d.placed(ctx, states) }, func() (line string, err error) {
		d.synced, err = d.writer.Sync(ctx, d.up, nil)
		return ui.Count(uint64(states.total), "file") + " erasure coded (4,2), sealed and placed", err
	})
	if err != nil {
		return fmt.Errorf("demo: sync: %w", err)
	}
	err = d.story.Step("every pledge is paid for", func() (string, error) {
		return "vouchers on a channel to each provider", d.until(ctx, d.allPaid)
	})
	if err != nil {
		return fmt.Errorf("demo: payments: %w", err)
	}
	d.story.Show("root      " + d.synced.Root + "\nmanifest  " + d.synced.Manifest)
	d.story.Say("")
	return d.showKept(ctx)
}

// placed tells how far the upload is.
func (d *demo) placed(ctx context.Context, states *fileStates) []gauge {
	uploads, err := d.writer.Uploads(ctx, true)
	if err != nil {
		return nil
	}
	links, err := d.writer.Links(ctx)
	if err != nil {
		return nil
	}
	if len(links) == 0 {
		st, err := d.writer.Status(ctx)
		if err != nil {
			return nil
		}
		return []gauge{{label: "coding", text: ui.Bytes(st.Store.UsedBytes) + " in blocks with their parity"}}
	}
	var done, total int64
	for _, u := range uploads {
		done, total = done+u.Done, total+u.Bytes
	}
	files := states.look()
	all := []gauge{
		{"signed for", done, total, fmt.Sprintf("%s of %s", ui.Bytes(uint64(done)), ui.Bytes(uint64(total)))},
		{"files", files, states.total, fmt.Sprintf("%s of %s", thousands(files), thousands(states.total))},
	}
	by := keptBy(links)
	for _, n := range d.providers {
		k := by[n.id.ID]
		all = append(all, gauge{n.name, k.signedBytes, max(1, k.bytes),
			fmt.Sprintf("%s of %s, %s, %s paid", ui.Bytes(uint64(k.signedBytes)), ui.Bytes(uint64(k.bytes)), ui.Count(uint64(k.signed), "pledge"), thousands(int64(k.paid)))})
	}
	return all
}

// fileStates counts the files that providers have signed for, as the mount tells by an extended attribute.
type fileStates struct {
	total int64
	open  []string // paths of those that were not uploaded when they were looked at last
	next  int      // of open
}

func newFileStates(d *demo) *fileStates {
	s := &fileStates{open: []string{filepath.Join(d.up, demoFile)}}
	for _, f := range d.files {
		s.open = append(s.open, filepath.Join(d.up, d.treeName, f.path))
	}
	s.total = int64(len(s.open))
	return s
}

// look asks for some states and returns how many files are known to be uploaded.
func (s *fileStates) look() int64 {
	var state [32]byte
	start := time.Now()
	for range len(s.open) {
		if time.Since(start) > statesFor {
			break
		}
		if s.next >= len(s.open) {
			s.next = 0
		}
		n, err := unix.Lgetxattr(s.open[s.next], "user.holdfast.state", state[:])
		if err == nil && string(state[:n]) == "uploaded" {
			s.open[s.next] = s.open[len(s.open)-1]
			s.open = s.open[:len(s.open)-1]
			continue
		}
		s.next++
	}
	return s.total - int64(len(s.open))
}

// allPaid says whether every pledge is paid, and keeps what each provider has.
func (d *demo) allPaid(ctx context.Context) (bool, error) {
	links, err := d.writer.Links(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range links {
		if l.State == linkSigned && !l.Paid {
			return false, nil
		}
	}
	d.kept = keptBy(links)
	return true, nil
}

// showKept shows what providers keep, and what they have got for it by their own books.
func (d *demo) showKept(ctx context.Context) error {
	t := &ui.Table{Heads: []string{"PROVIDER", ">CHUNKS", ">BYTES", ">PAID", ">IN ITS BOOK"}}
	var sum kept
	for _, n := range d.providers {
		k := d.kept[n.id.ID]
		// A voucher that is written is on its way: the books agree when it has come.
		var earned uint64
		pledged := k.paid
		err := d.until(ctx, func(ctx context.Context) (_ bool, err error) {
			if k.paid, err = d.writer.paid(ctx, n.id.ID); err != nil {
				return false, err
			}
			earned, _, err = n.earned(ctx, d.writerID)
			return earned == k.paid && earned >= pledged, err
		})
		d.kept[n.id.ID] = k
		sum.signed, sum.signedBytes, sum.paid = sum.signed+k.signed, sum.signedBytes+k.signedBytes, sum.paid+k.paid
		if err != nil {
			return fmt.Errorf("demo: %s has %d in its book, and was paid %d: %w", n.name, earned, k.paid, err)
		}
		t.Add(strings.TrimPrefix(n.name, "provider "), fmt.Sprint(k.signed), ui.Bytes(uint64(k.signedBytes)), thousands(int64(k.paid)), thousands(int64(earned)))
	}
	var text strings.Builder
	if err := t.Print(&text); err != nil {
		return err
	}
	d.story.Show(text.String())
	files := d.treeBytes + d.fileMiB<<20
	until := ""
	if d.synced.Expires != nil {
		until = " until " + d.synced.Expires.Local().Format(time.DateOnly)
	}
	d.story.Say("")
	d.story.Say("%s of files are %s at providers, %.2f times as much, for %s units%s.", ui.Bytes(uint64(files)), ui.Bytes(uint64(sum.signedBytes)),
		float64(sum.signedBytes)/float64(files), thousands(int64(sum.paid)), until)
	d.story.Say("Six shards make a stripe, each with another provider: any two of them may vanish.")
	return nil
}

// until asks cond again and again until it holds.
func (d *demo) until(ctx context.Context, cond func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("gave up waiting"))
	defer cancel()
	for {
		if ok, err := cond(ctx); ok || err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
