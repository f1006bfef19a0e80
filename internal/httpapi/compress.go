package httpapi

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/kkv-project/kkv/internal/store"
)

// compressFrom is the size in bytes from which a value is compressed for a client that asks for it; below, the
// frame and the time outweigh what is saved.
const compressFrom = 1 << 10

// codingFor is the coding in which a record's value is answered, "" for none.
func codingFor(r *http.Request, rec *store.Record) string {
	if len(rec.Value) < compressFrom {
		return ""
	}
	return accepted(r.Header["Accept-Encoding"])
}

// accepted is the coding to answer with: zstd before gzip, "" for neither (RFC 9110 section 12.5.3).
func accepted(lines []string) string {
	best := ""
	for _, l := range lines {
		for part := range strings.SplitSeq(l, ",") {
			name, params, _ := strings.Cut(part, ";")
			if q, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
				if f, err := strconv.ParseFloat(q, 64); err != nil || f == 0 {
					continue
				}
			}
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "zstd":
				return "zstd"
			case "gzip":
				best = "gzip"
			}
		}
	}
	return best
}

var gzips = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a legal one
	return w
}}

var zstds = sync.Pool{New: func() any {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<17)) // legal options
	return w
}}

// compressor writes to w in the coding; end must be called.
func compressor(w io.Writer, coding string) (out io.Writer, end func() error) {
	if coding == "zstd" {
		z := zstds.Get().(*zstd.Encoder)
		z.Reset(w)
		return z, func() error { defer zstds.Put(z); return z.Close() }
	}
	z := gzips.Get().(*gzip.Writer)
	z.Reset(w)
	return z, func() error { defer gzips.Put(z); return z.Close() }
}

func compress(w http.ResponseWriter, coding string, value []byte) {
	out, end := compressor(w, coding)
	_, _ = out.Write(value) // the client is gone if this fails
	_ = end()
}
