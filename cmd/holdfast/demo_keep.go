package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// endScript ends what --keep has left. A process counts as ours while its command line names our directory.
const endScript = `#!/bin/sh
# Ends the demonstration in this directory: its nodes, their mounts, and the directory itself.
dir=%s
ours() { grep -qsF -- "$dir" "/proc/$1/cmdline"; }
for pid in %s; do ours $pid && kill $pid; done
for pid in %s; do
	n=0
	while ours $pid; do
		sleep 0.1
		n=$((n + 1))
		[ $n -eq 150 ] && kill -9 $pid
	done
done
grep -F " $dir/" /proc/self/mounts | cut -d' ' -f2 | while read -r m; do fusermount3 -uz "$m" || umount -l "$m"; done
rm -rf --one-file-system -- "$dir"
`

// leave writes a script that ends everything, and tells what there is to play with.
func (d *demo) leave() error {
	var pids []string
	for _, n := range d.nodes {
		if n.alive() {
			pids = append(pids, fmt.Sprint(n.cmd.Process.Pid))
		}
	}
	all := strings.Join(pids, " ")
	end := filepath.Join(d.dir, "end")
	if err := os.WriteFile(end, fmt.Appendf(nil, endScript, quoted(d.dir), all, all), 0o755); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.story.Title("Still running")
	for _, n := range d.nodes {
		if n.alive() {
			d.story.Say("%-10s  pid %-8d  HOLDFAST_PATH=%s", n.name, n.cmd.Process.Pid, quoted(n.repo))
		}
	}
	d.story.Say("")
	d.story.Say("The content is at %s. To play with it, type for example", d.mount)
	d.story.Say("")
	for _, line := range []string{
		"export HOLDFAST_PATH=" + quoted(d.reader.repo) + " HOLDFAST_LEDGER=" + quoted(d.ledger()),
		"alias holdfast=" + quoted(self),
		"ls " + quoted(d.mount),
		"holdfast status",
		"holdfast verify " + d.synced.Manifest,
		"holdfast mount --detach --upload " + quoted(d.up) + "      # six providers are left: enough for (4,2)",
		"cp -r /etc/ssl " + quoted(d.up) + " && holdfast sync " + quoted(d.up),
		"holdfast links; holdfast providers; holdfast channels",
	} {
		d.story.Show(line)
	}
	d.story.Say("")
	d.story.Say("To end it all:  sh %s", quoted(end))
	return nil
}

// quoted is s as a shell reads it.
func quoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+=,:@%", r) && !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
