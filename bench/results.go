package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// results are the runs of one go, kept in Go's benchmark format (golang.org/design/14313-benchmark-format): one line a
// run, so that benchstat can tell medians, spread and differences.
type results struct {
	path   string
	file   *os.File // nil once closed, or when parsed
	config []pair   // of the machine and the run, in order
	names  []string // in order of their first run
	runs   map[string][]map[string]float64
}

type pair struct{ key, value string }

// metric is a value with its unit.
type metric struct {
	value float64
	unit  string
}

// createResults starts a file; it says which machine this is.
func createResults(path string, config []pair) (*results, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	r := &results{path: path, file: f, config: config, runs: map[string][]map[string]float64{}}
	for _, p := range config {
		fmt.Fprintf(f, "%s: %s\n", p.key, p.value)
	}
	_, err = fmt.Fprint(f, "Unit req/s better=higher\nUnit records/s better=higher\nUnit writes/s better=higher\n")
	return r, err
}

// add takes a run in and shows it.
func (r *results) add(name string, ms ...metric) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Benchmark%s 1", name)
	for _, m := range ms {
		fmt.Fprintf(&text, " %s %s", strconv.FormatFloat(m.value, 'f', -1, 64), m.unit)
	}
	return r.addLine(text.String())
}

// addLine is add for a run that is a line of the format already.
func (r *results) addLine(text string) error {
	fmt.Fprintln(os.Stderr, text)
	r.parse(text)
	_, err := fmt.Fprintln(r.file, text)
	return err
}

func (r *results) close(took time.Duration) error {
	p := pair{"took", took.Round(time.Second).String()}
	r.config = append(r.config, p)
	fmt.Fprintf(r.file, "%s: %s\n", p.key, p.value)
	return r.file.Close()
}

// parse takes in one line of a file.
func (r *results) parse(text string) {
	if name, ok := strings.CutPrefix(text, "Benchmark"); ok {
		f := strings.Fields(name)
		if len(f) < 2 {
			return
		}
		run := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				run[f[i+1]] = v
			}
		}
		if r.runs[f[0]] == nil {
			r.names = append(r.names, f[0])
		}
		r.runs[f[0]] = append(r.runs[f[0]], run)
		return
	}
	if key, value, ok := strings.Cut(text, ": "); ok && key != "" && key[0] >= 'a' && key[0] <= 'z' {
		r.config = append(r.config, pair{key, value})
	}
}

// readResults reads what createResults and add have written.
func readResults(path string) (*results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &results{path: path, runs: map[string][]map[string]float64{}}
	in := bufio.NewScanner(f)
	for in.Scan() {
		r.parse(in.Text())
	}
	return r, in.Err()
}

// get is a value of the configuration, or "".
func (r *results) get(key string) string {
	for _, p := range r.config {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// values are all runs' of one unit, sorted.
func (r *results) values(name, unit string) []float64 {
	var vs []float64
	for _, run := range r.runs[name] {
		if v, ok := run[unit]; ok {
			vs = append(vs, v)
		}
	}
	slices.Sort(vs)
	return vs
}

// median of the runs; false if there is none.
func (r *results) median(name, unit string) (float64, bool) {
	vs := r.values(name, unit)
	if len(vs) == 0 {
		return 0, false
	}
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2, true
}

// ratio of two medians; false if either is missing.
func (r *results) ratio(name, unit, to, toUnit string) (float64, bool) {
	a, ok := r.median(name, unit)
	b, ok2 := r.median(to, toUnit)
	return a / b, ok && ok2 && b != 0
}

// machine names what is measured on and with.
func machine(ctx context.Context, s settings) []pair {
	first := func(pattern string, name string, args ...string) string {
		out, err := output(ctx, name, args...)
		if err != nil {
			return "none"
		}
		return cmp.Or(regexp.MustCompile(pattern).FindString(out), "unknown")
	}
	inFile := func(path, pattern string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			return "unknown"
		}
		if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return "unknown"
	}
	kb, _ := strconv.ParseFloat(inFile("/proc/meminfo", `MemTotal:\s+(\d+)`), 64)
	commit, err := output(ctx, "git", "-C", "..", "describe", "--always", "--dirty")
	if err != nil {
		commit = "unknown"
	}
	return []pair{
		{"goos", runtime.GOOS},
		{"goarch", runtime.GOARCH},
		{"pkg", "github.com/kkv-project/kkv/bench"},
		{"cpu", inFile("/proc/cpuinfo", `model name\s*:\s*(.*)`)},
		{"cores", strconv.Itoa(runtime.NumCPU())},
		{"memory", fmt.Sprintf("%.0f GiB", kb/(1<<20))},
		{"kernel", inFile("/proc/sys/kernel/osrelease", `(\S+)`)},
		{"load", inFile("/proc/loadavg", `(\S+)`)},
		{"date", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		{"commit", commit},
		{"go", strings.TrimPrefix(runtime.Version(), "go")},
		{"kafka", inFile("../test/kafka/pom.xml", `<kafka.version>(.*)</kafka.version>`)},
		{"streams", inFile("rivals/globalktable/pom.xml", `<kafka.version>(.*)</kafka.version>`)},
		{"java", first(`[^\n]+`, "java", "--version")},
		{"redis", first(`\d+\.\d+\.\d+`, "redis-server", "--version")},
		{"wrk", first(`[0-9][^\s]*`, "dpkg-query", "-W", "-f", "${Version}", "wrk")},
		{"flags", cmp.Or(strings.Join(os.Args[1:], " "), "none")},
		{"scale", strconv.Itoa(s.scale)},
		{"batches", fmt.Sprintf("%d B, %s", s.batch, s.compression)},
	}
}
