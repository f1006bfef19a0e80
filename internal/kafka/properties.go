package kafka

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// LoadProperties reads a file in Java's .properties syntax (file may be ""),
// then applies overrides, each "name=value". Names are checked when the
// properties are used (Config.Options), values are not resolved here.
//
// The syntax is that of java.util.Properties.load: # and ! comments, =, : or
// white space between name and value, backslash escapes and continuation
// lines. The file is read as UTF-8.
func LoadProperties(file string, overrides []string) (map[string]string, error) {
	props := map[string]string{}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read Kafka properties: %w", err)
		}
		if props, err = parseProperties(string(text)); err != nil {
			return nil, fmt.Errorf("read Kafka properties %s: %w", file, err)
		}
	}
	for _, o := range overrides {
		name, value, ok := strings.Cut(o, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("Kafka property %q is not name=value, such as sasl.mechanism=PLAIN", firstWord(o))
		}
		props[name] = value
	}
	return props, nil
}

// firstWord keeps an error about a malformed property from repeating a
// password that stands in it.
func firstWord(s string) string {
	if f := strings.Fields(s); len(f) > 1 {
		return f[0] + " …"
	}
	return s
}

func parseProperties(text string) (map[string]string, error) {
	props := map[string]string{}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(lines[i], " \t\f")
		at := i + 1
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for oddBackslashes(line) {
			line = line[:len(line)-1]
			if i++; i == len(lines) {
				break
			}
			line += strings.TrimLeft(lines[i], " \t\f")
		}
		rawName, rawValue := splitProperty(line)
		name, err := unescapeProperty(rawName)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		value, err := unescapeProperty(rawValue)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		if name == "" {
			return nil, fmt.Errorf("line %d: no property name before the value", at)
		}
		props[name] = value
	}
	return props, nil
}

func oddBackslashes(line string) bool {
	n := len(line) - len(strings.TrimRight(line, `\`))
	return n%2 == 1
}

// splitProperty cuts a logical line at the first unescaped =, : or white
// space; white space around the separator belongs to neither side.
func splitProperty(line string) (name, value string) {
	end := len(line)
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
			continue
		}
		if strings.IndexByte("=: \t\f", line[i]) >= 0 {
			end = i
			break
		}
	}
	name, value = line[:end], strings.TrimLeft(line[end:], " \t\f")
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], " \t\f")
	}
	return name, value
}

func unescapeProperty(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	var units []uint16 // pending \u escapes: a surrogate pair takes two
	flush := func() {
		b.WriteString(string(utf16.Decode(units)))
		units = units[:0]
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			flush()
			b.WriteByte(s[i])
			continue
		}
		i++
		if s[i] == 'u' {
			if i+5 > len(s) {
				return "", errors.New(`a \u escape needs four hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", errors.New(`a \u escape needs four hexadecimal digits`)
			}
			units = append(units, uint16(n))
			i += 4
			continue
		}
		flush()
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		default:
			b.WriteByte(s[i])
		}
	}
	flush()
	return b.String(), nil
}

// used are the properties that kkv acts on.
var used = set(`
	bootstrap.servers client.id security.protocol
	request.timeout.ms connections.max.idle.ms metadata.max.age.ms
	socket.connection.setup.timeout.ms delivery.timeout.ms compression.type
	ssl.truststore.type ssl.truststore.location ssl.truststore.certificates
	ssl.truststore.password ssl.keystore.type ssl.keystore.location
	ssl.keystore.key ssl.keystore.certificate.chain ssl.keystore.password
	ssl.key.password ssl.endpoint.identification.algorithm
	ssl.protocol ssl.enabled.protocols
	sasl.mechanism sasl.jaas.config sasl.username sasl.password
	sasl.login.callback.handler.class
	sasl.oauthbearer.token.endpoint.url sasl.oauthbearer.scope
	sasl.oauthbearer.client.credentials.client.id
	sasl.oauthbearer.client.credentials.client.secret
`)

// ignored are properties that a shared client.properties often holds and that
// mean nothing to kkv: it joins no group, commits nothing, moves bytes
// unchanged, and always produces idempotently with acks=all.
var ignored = set(`
	acks enable.idempotence retries batch.size linger.ms buffer.memory
	max.block.ms max.request.size max.in.flight.requests.per.connection
	key.serializer value.serializer key.deserializer value.deserializer
	transaction.timeout.ms partitioner.ignore.keys
	partitioner.adaptive.partitioning.enable partitioner.availability.timeout.ms
	group.id group.instance.id group.protocol group.remote.assignor
	auto.offset.reset enable.auto.commit auto.commit.interval.ms
	allow.auto.create.topics exclude.internal.topics check.crcs
	default.api.timeout.ms session.timeout.ms heartbeat.interval.ms
	max.poll.interval.ms max.poll.records partition.assignment.strategy
	fetch.min.bytes fetch.max.wait.ms fetch.max.bytes
	max.partition.fetch.bytes client.dns.lookup client.rack
	receive.buffer.bytes send.buffer.bytes
	reconnect.backoff.ms reconnect.backoff.max.ms
	retry.backoff.ms retry.backoff.max.ms
	socket.connection.setup.timeout.max.ms metadata.max.idle.ms
	metadata.recovery.strategy metadata.recovery.rebootstrap.trigger.ms
	metric.reporters metrics.num.samples metrics.recording.level
	metrics.sample.window.ms auto.include.jmx.reporter enable.metrics.push
	interceptor.classes security.providers config.providers
	config.providers.file.class
	sasl.login.class sasl.login.connect.timeout.ms sasl.login.read.timeout.ms
	sasl.login.retry.backoff.ms sasl.login.retry.backoff.max.ms
	sasl.login.refresh.window.factor sasl.login.refresh.window.jitter
	sasl.login.refresh.min.period.seconds sasl.login.refresh.buffer.seconds
	sasl.kerberos.service.name sasl.kerberos.kinit.cmd
	sasl.kerberos.min.time.before.relogin sasl.kerberos.ticket.renew.jitter
	sasl.kerberos.ticket.renew.window.factor
`)

// instead names what to write in place of a property that other clients know.
var instead = map[string]string{
	"metadata.broker.list":     "bootstrap.servers",
	"sasl.mechanisms":          "sasl.mechanism",
	"ssl.ca.location":          "ssl.truststore.type=PEM and ssl.truststore.location",
	"ssl.ca.pem":               "ssl.truststore.type=PEM and ssl.truststore.certificates",
	"ssl.certificate.location": "ssl.keystore.type=PEM and ssl.keystore.location (one PEM file with the key and its certificates)",
	"ssl.key.location":         "ssl.keystore.type=PEM and ssl.keystore.location (one PEM file with the key and its certificates)",
	"ssl.certificate.pem":      "ssl.keystore.type=PEM and ssl.keystore.certificate.chain",
	"ssl.key.pem":              "ssl.keystore.type=PEM and ssl.keystore.key",
	"enable.ssl.certificate.verification": "ssl.endpoint.identification.algorithm= (empty) to accept any host name; " +
		"the certificate itself is always verified",
	"partitioner.class": "kkv's own partitioner setting (murmur2 or fnv1a)",
	"transactional.id":  "nothing: kkv does not produce in transactions",
}

func set(names string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(names) {
		m[n] = true
	}
	return m
}

// properties are checked names with values that may hold file references.
type properties map[string]string

func newProperties(m map[string]string) (properties, error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch {
		case name == "isolation.level" && m[name] != "read_committed":
			errs = append(errs, errors.New("Kafka property isolation.level: kkv reads read_committed only; remove it"))
		case name == "isolation.level", used[name], ignored[name]:
		case instead[name] != "":
			errs = append(errs, fmt.Errorf("Kafka property %s is not one of the Java client's: use %s", name, instead[name]))
		default:
			errs = append(errs, fmt.Errorf("Kafka property %s is not supported by kkv: check its spelling, or remove it", name))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return properties(m), nil
}

// has says whether a property is set to something, without reading files.
func (p properties) has(name string) bool { return strings.TrimSpace(p[name]) != "" }

// get is the value with its file references read now. It is "" if not set.
func (p properties) get(name string) (string, error) {
	v, err := resolveFiles(p[name])
	if err != nil {
		return "", fmt.Errorf("Kafka property %s: %w", name, err)
	}
	return v, nil
}

// word is the trimmed value, with a default, of a property that is a name.
func (p properties) word(name, otherwise string) (string, error) {
	v, err := p.get(name)
	if v = strings.TrimSpace(v); v == "" {
		v = otherwise
	}
	return v, err
}

// duration reads a property in milliseconds.
func (p properties) duration(name string, otherwise, least time.Duration) (time.Duration, error) {
	v, err := p.word(name, "")
	if err != nil || v == "" {
		return otherwise, err
	}
	ms, err := strconv.ParseInt(v, 10, 32)
	if err != nil || ms < 0 {
		return 0, fmt.Errorf("Kafka property %s=%s is not a number of milliseconds", name, v)
	}
	return max(least, time.Duration(ms)*time.Millisecond), nil
}

// fileReference is Kafka's FileConfigProvider syntax, ${file:path:key} (KIP-297),
// and without a key the file's whole content, as Kubernetes mounts a secret.
var fileReference = regexp.MustCompile(`\$\{file:([^}]*)\}`)

func resolveFiles(value string) (string, error) {
	if !strings.Contains(value, "${file:") {
		return value, nil
	}
	var failed error
	out := fileReference.ReplaceAllStringFunc(value, func(ref string) string {
		v, err := readReference(fileReference.FindStringSubmatch(ref)[1])
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", ref, err)
		}
		return v
	})
	return out, failed
}

func readReference(ref string) (string, error) {
	path, key, hasKey := ref, "", false
	// A drive letter's colon is no separator: C:\x.properties:key.
	if i := strings.LastIndexByte(ref, ':'); i > 1 {
		path, key, hasKey = ref[:i], ref[i+1:], true
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !hasKey {
		return strings.TrimSpace(string(text)), nil
	}
	props, err := parseProperties(string(text))
	if err != nil {
		return "", err
	}
	v, ok := props[key]
	if !ok {
		return "", fmt.Errorf("no property %q in that file", key)
	}
	return v, nil
}
