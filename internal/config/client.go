package config

import "time"

// Client says which caches a command of the command line asks.
type Client struct {
	Server []string `name:"server" default:"http://127.0.0.1:8091" check:"url" need:"the URL of a cache, such as http://127.0.0.1:8091" placeholder:"URL" help:"URLs of caches, tried in turn; repeatable or comma-separated."`
	Topic  string   `name:"topic" check:"topic" help:"The topic; may be empty while the cache serves one."`
	Token  string   `name:"token" secret:"" placeholder:"TOKEN" help:"Sent as Authorization: Bearer, for what stands before the cache; better by its environment variable, for others see a command line."`
}

// Patience bounds a call.
type Patience struct {
	Timeout time.Duration `name:"timeout" default:"5s" check:"positiveduration" help:"Give up after this long."`
}

// Keys says how keys are written on the command line and in what is printed.
type Keys struct {
	KeyEncoding string `name:"key-encoding" default:"text" oneof:"text,base64url" help:"Keys here and in what is printed are text, byte for byte, or base64url (RFC 4648) for those that are not."`
}

// Read says how fresh an answer must be.
type Read struct {
	AtLeast  []string `name:"at-least" hyphen:"" placeholder:"POSITION" help:"Wait until the cache has applied this: a position as kkv put prints it, or partition:offset of a record; repeatable."`
	Fresh    bool     `name:"fresh" help:"See every write acknowledged before this call."`
	MaxStale string   `name:"max-stale" check:"duration" placeholder:"DURATION" help:"Answer only if the data is known to be at most this old, such as 2s."`
}

// Stale is MaxStale, if it was asked for.
func (r *Read) Stale() (d time.Duration, asked bool) {
	if r.MaxStale == "" {
		return 0, false
	}
	d, _ = parseDuration(r.MaxStale) // Validate has seen to it
	return d, true
}

// Get is one value by its key.
type Get struct {
	Key string `arg:"" help:"The key."`
	Client
	Patience
	Keys
	Read
	Output string `name:"output" default:"%v" placeholder:"FORMAT" help:"What to print: json, or a format of %k key, %v value, %p partition, %o offset, %t time, %P position, \\n and \\t."`

	Log
}

// Ls is a list of keys.
type Ls struct {
	Prefix string `arg:"" optional:"" help:"Only keys that begin with it."`
	Client
	Patience
	Keys
	Read
	Output string `name:"output" default:"%k\\n" placeholder:"FORMAT" help:"What to print of each key: json for a line of JSON, or a format of %k key, %v value, %p partition, %o offset, %t time, \\n and \\t."`

	Log
}

// Put writes one value.
type Put struct {
	Key   string `arg:"" help:"The key."`
	Value string `arg:"" help:"The value, byte for byte; - reads it from standard input."`
	Client
	Patience
	Keys

	Log
}

// Del deletes keys.
type Del struct {
	Key []string `arg:"" sep:"none" help:"The keys."`
	Client
	Patience
	Keys

	Log
}

// Watch is the state of keys and then every change.
type Watch struct {
	Client
	Keys
	Key    string `name:"key" placeholder:"KEY" help:"Only this key."`
	Prefix string `name:"prefix" placeholder:"PREFIX" help:"Only keys that begin with it."`
	Since  string `name:"since" hyphen:"" placeholder:"POSITION" help:"Only what was put or deleted since this position, which an earlier watch printed; now leaves the state out."`
	Output string `name:"output" default:"json" placeholder:"FORMAT" help:"What to print of each change: json for a line of JSON, or a format of %e event, %k key, %v value, %p partition, %o offset, %t time, %P position, \\n and \\t, which leaves out what is not about a key."`

	Log
}

// Status is how far caches are.
type Status struct {
	Client
	Patience
	Output string `name:"output" default:"text" oneof:"text,json" help:"text for people, or json: a line for each cache."`

	Log
}

// Validate reports every fault of the settings at once, as Faults.
func (s *Get) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Ls) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Put) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Del) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Status) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Watch) Validate() error {
	var more Faults
	if s.Key != "" && s.Prefix != "" {
		more = Faults{{Setting: "key", Problem: "is set and so is prefix", Fix: "keep one of the two"}}
	}
	return validate(s, more)
}
