package config

import (
	"errors"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// inputs are the places that values come from, beside the flags that kong has already set.
type inputs struct {
	flags map[string]bool     // settings that a flag gave
	jvm   map[string]string   // -Dname=value arguments
	used  map[string]bool     // those of jvm that a setting took
	env   map[string]string   // the environment
	file  *file               // nil without --config
	of    map[string]*setting // the command's settings by name
}

// given is a value from one place.
type given struct {
	source Source
	value  reflect.Value
	err    error
}

// apply sets every setting of s to the value in force. It returns where each came from and what was wrong.
func (in *inputs) apply(s Settings) (map[string]Source, Faults) {
	all := settingsOf(s)
	in.of = make(map[string]*setting, len(all))
	for i := range all {
		in.of[all[i].name] = &all[i]
	}
	sources := make(map[string]Source, len(all))
	var faults Faults
	for _, set := range all {
		source, more := in.applyOne(set)
		if more == nil {
			sources[set.name] = source
		}
		faults = append(faults, more...)
	}
	return sources, append(faults, in.unknownKeys()...)
}

// applyOne takes the highest level at which the setting is given. Names of one level must agree; lower levels are not
// looked at, so that a flag gets one past anything that an environment holds.
func (in *inputs) applyOne(s setting) (Source, Faults) {
	for _, level := range []func(setting) []given{in.fromArgs, in.fromEnv, in.fromFile} {
		all := level(s)
		if len(all) == 0 {
			continue
		}
		var faults Faults
		for _, g := range all {
			if g.err != nil {
				faults = append(faults, Fault{Setting: s.name, From: g.source, Problem: g.err.Error()})
			}
		}
		if faults != nil {
			return Source{}, faults
		}
		for _, g := range all[1:] {
			if !reflect.DeepEqual(all[0].value.Interface(), g.value.Interface()) {
				return Source{}, Faults{{
					Setting: s.name,
					Problem: all[0].source.Name + "=" + s.show(all[0].value) + " and " + g.source.Name + "=" + s.show(g.value) + " differ",
					Fix:     "keep one of the two, or give both the same value",
				}}
			}
		}
		s.field.Set(all[0].value)
		return all[0].source, nil
	}
	return Source{}, nil
}

// show is a value for a message, secrets masked.
func (s setting) show(v reflect.Value) string {
	texts := slices.Clone(valuesOf(v))
	for i := range texts {
		texts[i], _ = s.mask(texts[i])
	}
	return strconv.Quote(strings.Join(texts, ","))
}

// fromArgs are the flag and, for serve, -Dname=value: name is the old name, or the property that MicroProfile Config maps
// to it (quarkus.http.port to QUARKUS_HTTP_PORT).
func (in *inputs) fromArgs(s setting) (out []given) {
	if in.flags[s.name] {
		out = append(out, given{source: Source{FromArgs, "--" + s.name}, value: s.field})
	}
	// Under the names that the setting takes, the arguments are read as the environment is.
	asEnv, origin := map[string]string{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(in.jvm)) {
		for _, env := range []string{name, strings.ToUpper(notEnv.ReplaceAllString(name, "_"))} {
			if s.takes(env) {
				asEnv[env], origin[env] = in.jvm[name], "-D"+name
				in.used[name] = true
				break
			}
		}
	}
	for _, o := range s.compat {
		g, ok := o.read(s, asEnv)
		if !ok {
			continue
		}
		names := strings.Split(g.source.Name, ",")
		for i := range names {
			names[i] = origin[names[i]]
		}
		g.source = Source{FromArgs, strings.Join(names, ",")}
		out = append(out, g)
	}
	return out
}

// notEnv is what MicroProfile Config replaces by _ to make an environment name of a property.
var notEnv = regexp.MustCompile(`[^a-zA-Z0-9]`)

// takes tells whether env is one of the setting's old names.
func (s setting) takes(env string) bool {
	return slices.ContainsFunc(s.compat, func(o oldName) bool { return o.matches(env) })
}

func (o oldName) matches(name string) bool {
	rest, ok := strings.CutPrefix(name, o.name)
	return ok && (rest == "" || o.many && allDigits.MatchString(rest))
}

var allDigits = regexp.MustCompile(`^[0-9]+$`)

// fromEnv are the setting's own variable and the old ones. An empty variable counts as not set.
func (in *inputs) fromEnv(s setting) (out []given) {
	if with := s.tag.Get("with"); with != "" && slices.Equal(in.of[with].values(), []string{""}) {
		return nil
	}
	own := oldName{name: s.env()}
	for _, o := range append([]oldName{own}, s.compat...) {
		if g, ok := o.read(s, in.env); ok {
			out = append(out, g)
		}
	}
	return out
}

// injected is what Kubernetes puts into NAME_PORT for a service called name: never a port that a person wrote.
var injected = regexp.MustCompile(`^(tcp|udp|sctp)://[^/]+:[0-9]+$`)

// read takes the setting from env under the old name: one value, or those of name, name1, name2, … in that order.
func (o oldName) read(s setting, env map[string]string) (given, bool) {
	var names []string
	if o.many {
		for name := range env {
			if o.matches(name) {
				names = append(names, name)
			}
		}
		slices.SortFunc(names, compareNumbered)
	} else {
		names = []string{o.name}
	}
	var (
		g    given
		list []string
		from []string
	)
	for _, name := range names {
		text := strings.TrimSpace(env[name])
		if text == "" || strings.HasSuffix(name, "_PORT") && injected.MatchString(text) {
			continue
		}
		from = append(from, name)
		if text, g.err = o.modern(text); g.err != nil {
			break
		}
		if o.many {
			list = append(list, text) // 1.x: one URL each, commas and all
			continue
		}
		g.value, g.err = s.decode(text)
	}
	if len(from) == 0 {
		return given{}, false
	}
	if o.many {
		g.value = reflect.ValueOf(list)
	}
	g.source = Source{FromEnv, strings.Join(from, ",")}
	return g, true
}

// compareNumbered orders target, target1, target2, target10.
func compareNumbered(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// fromFile is the setting's key of the file.
func (in *inputs) fromFile(s setting) []given {
	if in.file == nil || in.file.values[s.name] == nil {
		return nil
	}
	g := given{source: in.file.source(s.name)}
	if texts, ok, err := in.file.texts(s.name); err != nil {
		g.err = err
	} else if ok && !s.isList() {
		g.err = errors.New("is a list: give one value")
	} else if ok {
		g.value = reflect.ValueOf(texts)
	} else {
		g.value, g.err = s.decode(texts[0])
	}
	return []given{g}
}

// unknownKeys faults every key of the file that is no setting of the command.
func (in *inputs) unknownKeys() (faults Faults) {
	if in.file == nil {
		return nil
	}
	known := make([]string, 0, len(in.of))
	for name := range in.of {
		known = append(known, name)
	}
	for _, key := range in.file.order {
		if in.of[key] != nil {
			continue
		}
		fix := "remove it, or correct it"
		if others := commandsWith(key); len(others) > 0 {
			fix = "it belongs to kkv " + orList(others) + "; remove it here"
		} else if near := nearest(key, known); near != "" {
			fix = "did you mean " + near + "?"
		}
		faults = append(faults, Fault{Problem: "unknown key " + strconv.Quote(key) + " in " + in.file.source(key).Name, Fix: fix})
	}
	return faults
}

// notOurs tells whether a KKV_ variable belongs to somebody else: to the npm client, to Kubernetes for a service named
// kkv (or kkv-something), or to tests.
func notOurs(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	if rest == "PORT" {
		return true
	}
	for _, prefix := range []string{"FETCH_", "CACHE_HOST_", "PORT_", "SERVICE_", "TEST_"} {
		if strings.HasPrefix(rest, prefix) {
			return true
		}
	}
	return false
}

// injectedName are the other names that Kubernetes makes of a service called kkv-something.
var injectedName = regexp.MustCompile(`^KKV_.+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.+)?)?)$`)

// unknownEnv warns, in one line, of KKV_ variables that no command has.
func unknownEnv(env map[string]string) []string {
	known := []string{envName("config")}
	for _, c := range allCommands() {
		for _, s := range settingsOf(c.settings) {
			known = append(known, s.env())
		}
	}
	var unknown []string
	for name := range env {
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) && !notOurs(name) && !injectedName.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	for i, name := range unknown {
		if near := nearest(name, known); near != "" {
			unknown[i] += " (did you mean " + near + "?)"
		}
	}
	return []string{"unknown environment variables, ignored: " + strings.Join(unknown, ", ")}
}

// nearest is the known name that name is probably a misspelling of, or "". Case, _ and . do not count, and the first
// letter is taken to be right where two are equally far.
func nearest(name string, known []string) string {
	fold := func(s string) string { return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(s)) }
	best, least := "", 6
	for _, k := range slices.Sorted(slices.Values(known)) {
		d := 2 * distance(fold(name), fold(k))
		if d > len(name)+1 {
			continue
		}
		if name != "" && fold(name)[0] != fold(k)[0] {
			d++
		}
		if d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
