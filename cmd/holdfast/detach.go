package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// spawnMount runs this command line again in the background, in the foreground's words, and returns when the mount
// answers or has failed.
func (a *app) spawnMount(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("mount in the background: %w", err)
	}
	var args []string
	for _, arg := range os.Args[1:] {
		if arg != "--detach" && !strings.HasPrefix(arg, "--detach=") {
			args = append(args, arg)
		}
	}
	child := exec.Command(self, append(args, "--background")...)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var complaint strings.Builder
	child.Stderr = &complaint
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		return fmt.Errorf("mount in the background: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		a.say("%s", line)
		return child.Process.Release()
	}
	io.Copy(io.Discard, out)
	return backgroundError(child.Wait(), complaint.String())
}

// backgroundError is why the process in the background failed, in its own words.
func backgroundError(err error, complaint string) error {
	if err == nil {
		err = errors.New("it ended at once")
	}
	lines := strings.Split(strings.TrimSpace(complaint), "\n")
	var advice string
	if h, ok := strings.CutPrefix(strings.TrimSpace(lines[len(lines)-1]), "hint: "); ok {
		advice, lines = h, lines[:len(lines)-1]
	}
	if len(lines) > 0 && lines[len(lines)-1] != "" {
		err = errors.New(strings.TrimPrefix(lines[len(lines)-1], "holdfast: "))
	} else {
		err = fmt.Errorf("mount in the background: %w", err)
	}
	if advice == "" {
		return err
	}
	return hint.Add(err, "%s", advice)
}

// leaveTerminal gives the standard streams of a background process to the repo's log: who reads them now goes away.
func (a *app) leaveTerminal() error {
	dir, err := repo.Path(a.repoFlag)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(repo.LogPath(dir), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("leave the terminal: %w", err)
	}
	defer null.Close()
	for fd, f := range []*os.File{null, log, log} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("leave the terminal: %w", err)
		}
	}
	return nil
}
