package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// envPrefix starts the environment name of every setting.
const envPrefix = "KKV_"

// setting is one field of a settings struct, with what its tags say.
type setting struct {
	name   string // flag name without dashes
	field  reflect.Value
	tag    reflect.StructTag
	compat []oldName // empty but for serve
}

// oldName is a name under which kafka-keyvalue took a setting.
type oldName struct {
	name string
	kind string // "", "port" or "duration": how its value is written
	many bool   // also name1, name2, …
}

// settingsOf lists the settings of s, a pointer to a settings struct, in the order of its fields.
func settingsOf(s any) []setting {
	_, old := s.(*Serve)
	return appendSettings(nil, reflect.ValueOf(s).Elem(), old)
}

func appendSettings(out []setting, v reflect.Value, old bool) []setting {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous:
			out = appendSettings(out, v.Field(i), old)
		case f.Tag.Get("name") != "":
			s := setting{name: f.Tag.Get("name"), field: v.Field(i), tag: f.Tag}
			if old {
				s.compat = parseCompat(f.Tag.Get("compat"))
			}
			out = append(out, s)
		}
	}
	return out
}

func parseCompat(tag string) (out []oldName) {
	for _, item := range splitList(tag, ",") {
		var o oldName
		o.name, o.kind, _ = strings.Cut(item, "=")
		o.name, o.many = strings.CutSuffix(o.name, "*")
		out = append(out, o)
	}
	return out
}

// env is the setting's own environment name.
func (s setting) env() string { return envName(s.name) }

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (s setting) has(tag string) bool { _, ok := s.tag.Lookup(tag); return ok }

// names lists every way to set it, for a message that says what to do: "--topic, KKV_TOPIC or KAFKA_INCOMING_TOPIC".
// Lower-case names of 1.x are left to docs/config.md.
func (s setting) names() string {
	all := []string{"--" + s.name, s.env()}
	for _, o := range s.compat {
		if strings.ToUpper(o.name) == o.name {
			all = append(all, o.name)
		}
	}
	return orList(all)
}

func orList(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// sep separates the values of a list in one string: a comma, or a line break where values hold commas.
func (s setting) sep() string {
	if s.tag.Get("sep") == "none" {
		return "\n"
	}
	return ","
}

func (s setting) isList() bool { return s.field.Kind() == reflect.Slice }

// values are the setting's values as strings: one for a scalar, any number for a list.
func (s setting) values() []string { return valuesOf(s.field) }

func valuesOf(v reflect.Value) []string {
	switch x := v.Interface().(type) {
	case []string:
		return x
	case time.Duration:
		return []string{formatDuration(x)}
	default:
		return []string{fmt.Sprint(x)}
	}
}

// formatDuration is d.String without the zero parts that follow: 5m instead of 5m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var durationType = reflect.TypeFor[time.Duration]()

// decode reads text into a new value of the setting's type. Its errors say what was expected.
func (s setting) decode(text string) (reflect.Value, error) {
	if s.isList() {
		return reflect.ValueOf(splitList(text, s.sep())), nil
	}
	v := reflect.New(s.field.Type()).Elem()
	return v, decodeScalar(text, v)
}

func decodeScalar(text string, v reflect.Value) error {
	switch {
	case v.Type() == durationType:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return fmt.Errorf("%q is out of range", text)
			}
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	default:
		return fmt.Errorf("settings of type %s are not supported", v.Type())
	}
	return nil
}

// splitList splits text, trims the values and leaves out empty ones.
func splitList(text, sep string) []string {
	out := strings.Split(text, sep)
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return slices.DeleteFunc(out, func(v string) bool { return v == "" })
}

// isoDuration is java.time.Duration's form, which Quarkus takes: P1DT2H3M4.5S.
var isoDuration = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,9})?)S)?)?$`)

// parseDuration takes Go's form (1m30s), whole days (1d) and ISO 8601's (PT1M30S).
func parseDuration(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	iso := strings.ToUpper(text)
	if strings.HasSuffix(iso, "D") && !strings.HasPrefix(iso, "P") {
		iso = "P" + iso
	}
	m := isoDuration.FindStringSubmatch(iso)
	if m == nil || strings.Join(m[1:], "") == "" {
		return 0, fmt.Errorf("%q is not a duration with a unit, such as 500ms, 30s or 5m", text)
	}
	var sum float64
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] != "" {
			n, _ := strconv.ParseFloat(m[i+1], 64) // the pattern admits digits only
			sum += n * float64(unit)
		}
	}
	if sum >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long a duration", text)
	}
	return time.Duration(math.Round(sum)), nil
}

// modern rewrites a value given under an old name to the form that the setting has now.
func (o oldName) modern(text string) (string, error) {
	switch o.kind {
	case "port":
		if n, err := strconv.Atoi(text); err != nil || n < 0 || n > 65535 {
			return "", fmt.Errorf("%q is not a port from 0 to 65535", text)
		}
		return ":" + text, nil
	case "duration": // Quarkus: a bare number is seconds
		if _, err := strconv.ParseUint(text, 10, 63); err == nil {
			return text + "s", nil
		}
	}
	return text, nil
}

// Source says where the value in force came from.
type Source struct {
	Kind SourceKind
	Name string // flag, variable or argument; for a file its path and line, as path:line
}

// SourceKind is a level of precedence; a higher one wins.
type SourceKind int

// The levels, lowest first.
const (
	FromDefault SourceKind = iota
	FromFile
	FromEnv
	FromArgs
)

// String is for people: "default", "file kkv.yaml:3", "environment KKV_TOPIC", "flag --topic".
func (s Source) String() string {
	switch s.Kind {
	case FromFile:
		return "file " + s.Name
	case FromEnv:
		return "environment " + s.Name
	case FromArgs:
		if strings.HasPrefix(s.Name, "-D") {
			return "argument " + s.Name
		}
		return "flag " + s.Name
	}
	return "default"
}
