package test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestContentOverHTTP reads by URL from the control socket, whole and in part.
func TestContentOverHTTP(t *testing.T) {
	s, a, b := near(t)
	big := s.RandomFile(5<<20, 1, "tree", "a dir", "big")
	url := "http://holdfast/content/" + a.Add(s.Path("tree")) + "/a%20dir/big"
	want, err := os.ReadFile(big)
	must(t, err)
	socket := filepath.Join(b.Repo, "api.sock")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		url, part string
		status    int
		want      []byte
	}{
		{url, "", http.StatusOK, want},
		{url, "bytes=1000000-2999999", http.StatusPartialContent, want[1000000:3000000]},
		{url, "bytes=-1000", http.StatusPartialContent, want[len(want)-1000:]},
		{url, "bytes=5000000-", http.StatusPartialContent, want[5000000:]},
		{url, "bytes=9999999-", http.StatusRequestedRangeNotSatisfiable, nil},
		{url + "/none", "", http.StatusNotFound, nil},
	} {
		status, got := fetch(t, client, "GET", c.url, c.part)
		if status != c.status || c.want != nil && !bytes.Equal(got, c.want) {
			t.Errorf("%s %s: status %d, want %d; %d bytes, want %d", c.url, c.part, status, c.status, len(got), len(c.want))
		}
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket has mode %v, %v", info.Mode(), err)
	}
}

// TestMetrics reads figures and status page over TCP; content and commands are
// not there.
func TestMetrics(t *testing.T) {
	s := swarm.New(t)
	url := "http://" + freeAddress(t)
	n := s.Start("a", "--metrics-listen", strings.TrimPrefix(url, "http://"))
	root := n.Add(s.WriteFile("secret", "f"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if status, got := fetch(t, client, "GET", url+"/metrics", ""); status != http.StatusOK || !strings.Contains(string(got), "holdfast_") {
		t.Errorf("metrics: status %d, no figure of ours: %.500s", status, got)
	}
	if status, got := fetch(t, client, "GET", url+"/", ""); status != http.StatusOK || !strings.Contains(string(got), n.Identity().ID) {
		t.Errorf("the status page: status %d, does not say whose: %.500s", status, got)
	}
	for _, path := range []string{"/content/" + root, "/v1/id", "/v1/gc"} {
		for _, method := range []string{"GET", "POST"} {
			if status, got := fetch(t, client, method, url+path, ""); status < 400 {
				t.Errorf("%s %s over TCP: status %d: %.100s", method, path, status, got)
			}
		}
	}
}

// fetch sends a request, for a part of the content if part is not empty.
func fetch(t *testing.T, c *http.Client, method, url, part string) (status int, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	must(t, err)
	if part != "" {
		req.Header.Set("Range", part)
	}
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, body
}

// TestLongAndOddPaths puts repo and mount where names are long and odd.
func TestLongAndOddPaths(t *testing.T) {
	s := swarm.New(t)
	long := filepath.Join(strings.Repeat("long/", 30), "with space")
	s.Mkdir(long)
	n := s.Start(long + "/node")
	tree := s.ManyFiles(3, "tree")
	root := n.Add(tree)
	m := n.Mount(long+"/mount 'quoted' ünï\\040", root)
	s.MustSh(`diff -r "$1" "$2"`, tree, m)
	n.Must("umount", m)
	s.MustSh(`cd "$1"; mkdir -p here; ln -s here there; HOLDFAST_PATH="$2" "$3" mount --detach "$4" there/; diff -r "$5" here; HOLDFAST_PATH="$2" "$3" umount there`,
		s.Mkdir("cwd"), n.Repo, s.Bin, root, tree)
	nothingMounted(t, s)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
