package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

var header = []string{"workload", "holdfast", "reference", "ratio", "spread", "wanted", ""}

// printTable prints one line a result, columns aligned.
func printTable(w io.Writer, opt options, results []result) {
	fmt.Fprintln(w, machine(opt))
	lines := [][]string{header}
	for _, r := range results {
		lines = append(lines, r.cells())
	}
	widths := make([]int, len(header))
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for i, cells := range lines {
		fmt.Fprintln(w, align(cells, widths))
		if i == 0 {
			fmt.Fprintln(w, strings.Repeat("-", sum(widths)+3*(len(widths)-1)))
		}
	}
}

func align(cells []string, widths []int) string {
	padded := make([]string, len(cells))
	for i, c := range cells {
		padded[i] = c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
	}
	return strings.TrimRight(strings.Join(padded, " | "), " ")
}

func sum(n []int) (total int) {
	for _, v := range n {
		total += v
	}
	return total
}

// cells are a result's columns, in the order of header.
func (r result) cells() []string {
	g := r.row.goal
	if err := r.notMeasured(); err != nil {
		return []string{r.row.name, "", "", "", "", g.String(), "not measured: " + firstLine(err.Error())}
	}
	median, low, high := spread(r.values())
	ours, ref := "", ""
	if len(r.ref) > 0 {
		ours, ref = r.row.unit.median(r.ours), r.row.unit.median(r.ref)
	} else {
		ours = g.format(median)
	}
	verdict := "short"
	if g.met(median) {
		verdict = "ok"
	}
	if r.note != "" {
		verdict += " (" + r.note + ")"
	}
	ratio := g.format(median)
	if len(r.ref) == 0 {
		ratio = ""
	}
	return []string{r.row.name, ours, ref, ratio, g.format(low) + "–" + g.format(high), g.String(), verdict}
}

// median prints the median rate of samples.
func (u unit) median(samples []sample) string {
	rate, _, _ := spread(rates(samples))
	if u == unitBytes {
		rate /= 1e6
	}
	return humanize.Commaf(float64(int64(rate+0.5))) + " " + string(u)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// machine says on what the figures were taken.
func machine(opt options) string {
	var u unix.Utsname
	unix.Uname(&u)
	return fmt.Sprintf("linux %s, %d cores, load %s before and %s after, %s on %s, file of %s, %s files of %s, %d runs",
		unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), opt.load, loadAverage(), fsType(opt.dir), opt.dir,
		humanize.IBytes(uint64(opt.size)), humanize.Comma(int64(opt.files)), humanize.IBytes(smallFile), opt.runs)
}

// loadAverage is how many programs wanted a processor in the last minute:
// figures taken beside others' work are not this machine's.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}

// fsType names the file system of dir where its magic is a usual one.
func fsType(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown file system"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

// record is a result as JSON: rates in bytes, files or reads a second, values
// as the row's goal has them.
type record struct {
	Workload  string    `json:"workload"`
	Unit      string    `json:"unit"`
	Holdfast  []float64 `json:"holdfast"`
	Reference []float64 `json:"reference,omitempty"`
	Values    []float64 `json:"values"`
	Median    float64   `json:"median"`
	Wanted    string    `json:"wanted"`
	OK        bool      `json:"ok"`
	Note      string    `json:"note,omitempty"`
	Error     string    `json:"error,omitempty"`
}

func printJSON(w io.Writer, opt options, results []result) error {
	records := make([]record, 0, len(results))
	for _, r := range results {
		rec := record{Workload: r.row.name, Unit: strings.Replace(string(r.row.unit), "MB", "bytes", 1), Wanted: r.row.goal.String(), Note: r.note}
		if err := r.notMeasured(); err != nil {
			rec.Error = err.Error()
		} else {
			rec.Values = r.values()
			rec.Median, _, _ = spread(rec.Values)
			rec.OK = r.row.goal.met(rec.Median)
		}
		if len(r.ref) > 0 {
			rec.Holdfast, rec.Reference = rates(r.ours), rates(r.ref)
		}
		records = append(records, rec)
	}
	host, _ := os.Hostname()
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{"machine": machine(opt), "host": host, "rows": records})
}
