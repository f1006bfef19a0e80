package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/config"
	"github.com/kkv-project/kkv/internal/wire"
)

// format is how entries and changes are printed: as the lines of JSON that a cache answers with, or by a pattern.
type format struct {
	json   bool
	keys   *config.Keys
	parts  []part
	values bool // they are printed, and so have to be asked for
}

// part is a verb of the pattern, or text where verb is 0.
type part struct {
	verb byte
	text string
}

const verbs = "kvpotPe"

// parseFormat reads "json", or a pattern such as '%k %v\n'.
func parseFormat(text string, keys *config.Keys) (*format, error) {
	f := &format{keys: keys}
	if text == "json" {
		f.json, f.values = true, true
		return f, nil
	}
	plain := ""
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '%' && c != '\\' {
			plain += text[i : i+1]
			continue
		}
		if i++; i == len(text) {
			return nil, usage("--output %q ends in %c: write %c%c for one", text, c, c, c)
		}
		switch verb := text[i]; {
		case verb == c:
			plain += string(c)
		case c == '\\' && strings.IndexByte("nt0", verb) >= 0:
			plain += map[byte]string{'n': "\n", 't': "\t", '0': "\x00"}[verb]
		case c == '%' && strings.IndexByte(verbs, verb) >= 0:
			f.parts = append(f.parts, part{text: plain}, part{verb: verb})
			plain, f.values = "", f.values || verb == 'v'
		default:
			return nil, usage("--output %q has %c%c, which is unknown: use json, or a format of %%k %%v %%p %%o %%t %%P %%e %%%% \\n \\t \\0", text, c, verb)
		}
	}
	f.parts = append(f.parts, part{text: plain})
	return f, nil
}

// append writes one entry, or a change of a watch; position may be "".
func (f *format) append(b []byte, kind string, e *kkv.Entry, position string) []byte {
	if f.json {
		c := wire.Change{Type: kind, Key: []byte(e.Key), Value: e.Value, Partition: e.Partition, Offset: e.Offset, Position: position}
		if !e.Timestamp.IsZero() {
			c.Timestamp = e.Timestamp.UnixMilli()
		}
		for _, h := range e.Headers {
			c.Headers = append(c.Headers, wire.Header{Key: h.Key, Value: h.Value})
		}
		return wire.AppendNDJSON(b, &c)
	}
	for _, p := range f.parts {
		switch p.verb {
		case 0:
			b = append(b, p.text...)
		case 'k':
			b = appendKey(b, f.keys, []byte(e.Key))
		case 'v':
			b = append(b, e.Value...)
		case 'p':
			b = strconv.AppendInt(b, int64(e.Partition), 10)
		case 'o':
			b = strconv.AppendInt(b, e.Offset, 10)
		case 't':
			b = e.Timestamp.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
		case 'P':
			b = append(b, position...)
		case 'e':
			b = append(b, kind...)
		default:
			panic(fmt.Sprintf("format: verb %c", p.verb))
		}
	}
	return b
}
