package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with a setting, and what to do about it.
type Fault struct {
	Setting string // flag name without dashes; empty where the fault is not one setting's
	From    Source // where the value came from; the zero value is the default
	Problem string // with secrets masked
	Fix     string
}

// Error is one line: setting, source, problem, fix.
func (f Fault) Error() string {
	var b strings.Builder
	if f.Setting != "" {
		b.WriteString(f.Setting)
		if f.From.Kind != FromDefault {
			fmt.Fprintf(&b, " (%s)", f.From)
		}
		b.WriteString(": ")
	}
	b.WriteString(f.Problem)
	if f.Fix != "" {
		b.WriteString(": " + f.Fix)
	}
	return b.String()
}

// Faults are all faults of a command's settings.
type Faults []Fault

// Error is a line per fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// validate applies the tags of every setting of s and appends more. It returns nil or Faults.
func validate(s Settings, more Faults) error {
	var faults Faults
	for _, set := range settingsOf(s) {
		faults = append(faults, set.faults()...)
	}
	if faults = append(faults, more...); len(faults) == 0 {
		return nil
	}
	return faults
}

// faults applies the setting's tags to its value.
func (s setting) faults() (out Faults) {
	values := s.values()
	if !s.isList() && values[0] == "" {
		values = nil
	}
	if need := s.tag.Get("need"); need != "" && len(values) == 0 {
		return Faults{{Setting: s.name, Problem: "is not set", Fix: "set " + s.names() + " to " + need}}
	}
	if one := splitList(s.tag.Get("oneof"), ","); len(one) > 0 {
		for _, v := range values {
			if !slices.Contains(one, v) {
				out = append(out, Fault{Setting: s.name, Problem: s.quote(v) + " is unknown", Fix: "use " + orList(one)})
			}
		}
	}
	for _, name := range splitList(s.tag.Get("check"), ",") {
		for i, v := range values {
			if problem, fix := checks[name](v); problem != "" {
				shown := s.quote(v)
				if name == "property" { // may be a secret whose name was forgotten
					shown = "value " + strconv.Itoa(i+1)
				}
				out = append(out, Fault{Setting: s.name, Problem: shown + " " + problem, Fix: fix})
			}
		}
	}
	return out
}

// quote shows a value in a message, secrets masked.
func (s setting) quote(v string) string {
	masked, _ := s.mask(v)
	return strconv.Quote(masked)
}

// checks are the rules that a `check` tag names: each returns what is wrong with a value that is not empty, and the fix.
var checks = map[string]func(string) (problem, fix string){
	"listen":      checkListen,
	"broker":      checkBroker,
	"url":         checkURL,
	"topic":       checkTopic,
	"host":        checkHost,
	"path":        checkPath,
	"property":    checkProperty,
	"port":        func(v string) (string, string) { return checkRange(v, 1, 65535, "a port") },
	"positive":    func(v string) (string, string) { return checkRange(v, 1, 1<<31-1, "a number") },
	"replication": checkReplication,
	"notnegative": func(v string) (string, string) {
		if strings.HasPrefix(v, "-") {
			return "is negative", "give 0 or more"
		}
		return "", ""
	},
	"positiveduration": func(v string) (string, string) {
		if d, err := parseDuration(v); err != nil || d <= 0 {
			return "is not above 0", "give a duration such as 500ms or 5s"
		}
		return "", ""
	},
	"duration": func(v string) (string, string) {
		if d, err := parseDuration(v); err != nil || d < 0 {
			return "is not a duration from 0 up", "give one with a unit, such as 500ms or 2s"
		}
		return "", ""
	},
	"bytes": func(v string) (string, string) {
		if v == "auto" {
			return "", ""
		}
		if _, err := ParseBytes(v); err != nil {
			return "is not a size in bytes", "give a number with or without a unit, such as 500MB or 2GiB"
		}
		return "", ""
	},
	"label":   checkLabel,
	"segment": checkSegment,
}

// units of ParseBytes, the longest names first.
var units = []struct {
	name  string
	bytes float64
}{{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"KI", 1 << 10}, {"MI", 1 << 20}, {"GI", 1 << 30}, {"TI", 1 << 40}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"B", 1}}

// ParseBytes reads a size in bytes, with a decimal or binary unit in any case or none: 500MB, 2GiB, 1.5Gi, 1000000.
func ParseBytes(v string) (int64, error) {
	number, factor := strings.ToUpper(strings.TrimSpace(v)), 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || n*factor >= 1<<62 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is not a size in bytes: give a number with or without a unit, such as 500MB or 2GiB", v)
	}
	return int64(n * factor), nil
}

func checkListen(v string) (string, string) {
	const fix = "give host:port, or :port for all interfaces"
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return "is not an address to listen on", fix
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Sprintf("has port %q, which is not within 0 to 65535", port), fix
	}
	return "", ""
}

func checkBroker(v string) (string, string) {
	const fix = "give host:port, such as kafka:9092"
	if strings.Contains(v, "://") {
		return "has a scheme", fix + "; the protocol is the property security.protocol"
	}
	host, port, err := net.SplitHostPort(v)
	if err != nil || host == "" {
		return "is not a broker's address", fix
	}
	return checkPort(port, fix)
}

func checkURL(v string) (string, string) {
	const fix = "give a whole URL, such as http://app:8080 or http://app:8080/kafka-keyvalue/v1/updates"
	u, err := url.Parse(v)
	switch {
	case err != nil:
		var ue *url.Error // its text would repeat the URL, unmasked
		if errors.As(err, &ue) {
			if inner := ue.Err.Error(); !strings.Contains(v, "@") {
				return "is not a URL (" + inner + ")", fix
			}
		}
		return "is not a URL", fix
	case u.Scheme != "http" && u.Scheme != "https":
		return "does not start with http:// or https://", fix
	case u.Hostname() == "":
		return "has no host", fix
	case u.Fragment != "":
		return "has a #fragment, which is never sent", "drop it, or write # as %23"
	}
	if u.Port() != "" {
		return checkPort(u.Port(), fix)
	}
	return "", ""
}

func checkPort(port, fix string) (string, string) {
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Sprintf("has port %q, which is not within 1 to 65535", port), fix
	}
	return "", ""
}

// legalTopic is Kafka's own rule (org.apache.kafka.common.internals.Topic), which also forbids "." and "..".
var legalTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func checkTopic(v string) (string, string) {
	if !legalTopic.MatchString(v) || v == "." || v == ".." {
		return "is not a legal topic name", "use 1 to 249 of the characters a-z A-Z 0-9 . _ -"
	}
	return "", ""
}

func checkHost(v string) (string, string) {
	const fix = "give a host name or an IP address alone; scheme, port and path have settings of their own"
	if _, err := netip.ParseAddr(strings.Trim(v, "[]")); err == nil {
		return "", ""
	}
	if strings.ContainsAny(v, "/:@?#[] \t\n") {
		return "is not a host", fix
	}
	return "", ""
}

func checkPath(v string) (string, string) {
	if !strings.HasPrefix(v, "/") {
		return "does not start with /", "give a path such as /kafka-keyvalue/v1/updates"
	}
	if _, err := url.Parse("http://host" + v); err != nil || strings.ContainsAny(v, "# \t\n") {
		return "is not a path", "percent-encode what a URL cannot hold"
	}
	return "", ""
}

func checkProperty(v string) (string, string) {
	if name, _, ok := strings.Cut(v, "="); !ok || strings.TrimSpace(name) == "" {
		return "is not name=value", "give a property such as security.protocol=SASL_SSL"
	}
	return "", ""
}

func checkRange(v string, low, high int64, what string) (string, string) {
	if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < low || n > high {
		return fmt.Sprintf("is not within %d to %d", low, high), "give " + what + " in that range"
	}
	return "", ""
}

func checkReplication(v string) (string, string) {
	if v == "-1" {
		return "", ""
	}
	if problem, _ := checkRange(v, 1, 1<<15-1, ""); problem != "" {
		return problem, "give a number in that range, or -1 for the broker's default"
	}
	return "", ""
}

// legalLabel is RFC 1123's label, as Kubernetes asks of the names of services and namespaces.
var legalLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func checkLabel(v string) (string, string) {
	if !legalLabel.MatchString(v) {
		return "is not a Kubernetes name", "use up to 63 of the characters a-z 0-9 -"
	}
	return "", ""
}

func checkSegment(v string) (string, string) {
	if strings.ContainsAny(v, "/?#% \t\n") {
		return "cannot stand in a path", "leave out spaces and the characters / ? # %"
	}
	return "", ""
}
