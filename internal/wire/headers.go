package wire

import (
	"encoding/binary"
	"iter"
)

// Headers are a record's headers, encoded one after the other, so that a million records hold no pointers for them:
// length and bytes of the key, length + 1 and bytes of the value or 0 for Kafka's null, lengths as varints. nil for
// none. Build them with Append.
type Headers []byte

// Append adds a header; a nil value is Kafka's null.
func (h Headers) Append(key string, value []byte) Headers {
	h = binary.AppendUvarint(h, uint64(len(key)))
	h = append(h, key...)
	if value == nil {
		return binary.AppendUvarint(h, 0)
	}
	h = binary.AppendUvarint(h, uint64(len(value))+1)
	return append(h, value...)
}

// All yields the headers in their order. The values are views.
func (h Headers) All() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for b := []byte(h); len(b) > 0; {
			n, w := binary.Uvarint(b)
			key := string(b[w : w+int(n)])
			b = b[w+int(n):]
			n, w = binary.Uvarint(b)
			b = b[w:]
			var value []byte
			if n > 0 {
				value = b[: n-1 : n-1]
				b = b[n-1:]
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

// List is All as Change has it; nil for none.
func (h Headers) List() (out []Header) {
	for k, v := range h.All() {
		out = append(out, Header{Key: k, Value: v})
	}
	return out
}
