package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/kkv-project/kkv/internal/cache"
)

// Header values that never change, as http.Header has them. They have no room to be appended to.
var (
	octetStream = []string{"application/octet-stream"}
	noCache     = []string{"no-cache"}
	nosniff     = []string{"nosniff"}
	sandbox     = []string{"sandbox"}
	zeroLength  = []string{"0"}
	connClose   = []string{"close"}

	// Vary names the request headers that an answer depends on (rule 18), but for conditions, which caches know.
	varyFresh = []string{"Kkv-At-Least, Kkv-Consistency, Kkv-Max-Stale, Kkv-Timeout"}
	varyList  = []string{"Accept-Encoding, " + varyFresh[0]}
	varyKey   = []string{"Prefer, " + varyList[0]}
)

// fields gathers header fields and hands them over with two allocations, however many they are: a GET from memory
// spends most of its time on its headers.
type fields struct {
	room  [384]byte
	buf   []byte
	names [12]string
	ends  [12]int
	n     int
}

// begin starts a field; what is appended to buf until end is its value. name is in canonical form.
func (f *fields) begin(name string) {
	if f.buf == nil {
		f.buf = f.room[:0]
	}
	f.names[f.n] = name
}

func (f *fields) end() {
	f.ends[f.n] = len(f.buf)
	f.n++
}

func (f *fields) text(name, value string) {
	f.begin(name)
	f.buf = append(f.buf, value...)
	f.end()
}

func (f *fields) number(name string, value int64) {
	f.begin(name)
	f.buf = strconv.AppendInt(f.buf, value, 10)
	f.end()
}

// mark adds the position of the state that an answer was taken from, and its age (CONTRACT section 3).
func (f *fields) mark(m *cache.Mark) {
	f.text("Kkv-Position", m.Text)
	if age, ok := m.Age(); ok {
		f.number("Kkv-Age-Ms", age.Milliseconds())
	}
}

func (f *fields) date(name string, ms int64) {
	f.begin(name)
	f.buf = time.UnixMilli(ms).UTC().AppendFormat(f.buf, http.TimeFormat)
	f.end()
}

// into puts the fields into h.
func (f *fields) into(h http.Header) {
	all := string(f.buf)
	values := make([]string, f.n)
	start := 0
	for i := range f.n {
		values[i] = all[start:f.ends[i]]
		start = f.ends[i]
		h[f.names[i]] = values[i : i+1 : i+1]
	}
}
