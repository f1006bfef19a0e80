// Package dataset is what the benchmarks read: topics whose every key and value follows from its number, so that the
// loader, the rivals and those who check answers agree without keeping a copy.
package dataset

import "fmt"

// KeyBytes is the length of every key: "key-" and twelve digits, which is what redis-benchmark can make up.
const KeyBytes = 16

// A Topic is a size and shape. It is a value, safe for concurrent use.
type Topic struct {
	Name       string // short: on the command line and in results
	Keys       int
	Writes     int // records per key
	ValueBytes int
	Partitions int32
}

// Topics are the ones measured, in the order of issue 4's list.
var Topics = []Topic{
	{Name: "1m", Keys: 1_000_000, Writes: 1, ValueBytes: 215 - KeyBytes, Partitions: 4},
	{Name: "10m", Keys: 10_000_000, Writes: 1, ValueBytes: 50 - KeyBytes, Partitions: 50},
	{Name: "4k", Keys: 100_000, Writes: 1, ValueBytes: 4096 - KeyBytes, Partitions: 4},
	{Name: "churn", Keys: 100_000, Writes: 10, ValueBytes: 215 - KeyBytes, Partitions: 4},
}

// Scaled is the topic with one key of each n.
func (t Topic) Scaled(n int) Topic {
	t.Keys = max(1, t.Keys/n)
	return t
}

// Records is how many there are in all.
func (t Topic) Records() int { return t.Keys * t.Writes }

// Payload is the bytes of keys and values of the newest records: what a cache of the topic must hold.
func (t Topic) Payload() int64 { return int64(t.Keys) * int64(KeyBytes+t.ValueBytes) }

func (t Topic) String() string {
	s := fmt.Sprintf("%d keys x %d B in %d partitions", t.Keys, KeyBytes+t.ValueBytes, t.Partitions)
	if t.Writes > 1 {
		s += fmt.Sprintf(", each written %d times", t.Writes)
	}
	return s
}

// stride steps through the keys in an order that is not theirs; it is prime, so that it meets each once.
const stride = 7_368_787

// Record is the key number and the version of the i-th record of the log.
func (t Topic) Record(i int) (key, version int) {
	return int(uint64(i%t.Keys) * stride % uint64(t.Keys)), i / t.Keys
}

// AppendKey appends the key of that number.
func AppendKey(b []byte, key int) []byte { return fmt.Appendf(b, "key-%012d", key) }

// AppendValue appends the value of a key's version: half random letters, half a text, in turns of eight.
func (t Topic) AppendValue(b []byte, key, version int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	x := uint64(key)<<20 | uint64(version) | 1<<63
	for left := t.ValueBytes; left > 0; {
		// splitmix64, as in Steele, Lea, Flood 2014.
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		for range min(8, left) {
			b = append(b, letters[z&63])
			z >>= 6
		}
		left -= min(8, left)
		n := min(8, left)
		b = append(b, `","size:`[:n]...)
		left -= n
	}
	return b
}
