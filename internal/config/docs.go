package config

import (
	"fmt"
	"strings"
)

const docsHead = `<!-- Generated from internal/config. Do not edit: run "go run ./cmd/kkv config --docs > docs/config.md". -->

# Settings

Every setting has a flag, an environment variable and a key in a YAML file. The first of these that gives it decides:

1. the flag, ` + "`--topic orders`" + `
2. the environment, ` + "`KKV_TOPIC=orders`" + ` (an empty variable counts as not set)
3. the file named by ` + "`--config FILE`" + ` or ` + "`KKV_CONFIG`" + `, ` + "`topic: orders`" + `
4. the default

` + "`kkv config [command] [flags]`" + ` shows what a command would run with and where each value comes from. Secrets are masked. Its
output is itself such a file; masked values stand in it as comments. With faults in the settings it names them and exits with 2.

An unknown flag, an unknown key in the file and a value that cannot be right are errors, all reported at once, with what to do
about each. An unknown ` + "`KKV_…`" + ` variable is one warning.

**Lists** are given by repeating the flag, by commas, or as a YAML list. A Kafka property may hold commas: repeat
` + "`--kafka-property`" + `, or put one property a line into ` + "`KKV_KAFKA_PROPERTY`" + `.
**Durations** are written ` + "`500ms`, `30s`, `5m`, `1h30m`" + ` or as ISO 8601 has them, ` + "`PT5M`" + `.

Never read as settings, and never warned of: ` + "`KKV_FETCH_*` and `KKV_CACHE_HOST_*`" + ` belong to the npm client; ` +
	"`KKV_PORT`, `KKV_PORT_*` and `KKV_SERVICE_*`" + `
are set by Kubernetes next to a service named kkv; ` + "`KKV_TEST_*`" + ` belongs to tests.

Exit codes: 0; 1 for an error while running; 2 for settings or a command line that cannot be run. ` + "`kkv get`, `ls`, `put`, `del`, `watch` and `status`" + `
also have 4 where the key has no value, and 5 where the cache did not become as fresh as was asked for in time.
`

const docsServe = `
### Names of kafka-keyvalue 1.x and 2.x

` + "`kkv serve`" + ` takes the names in the column "Old names" as well, so that a deployment of the original starts with nothing changed but
its image:

- A setting given by two names with different values is an error that shows both.
- With no command at all, ` + "`serve`" + ` is meant if a ` + "`-D…`" + ` argument is there, or ` + "`KAFKA_INCOMING_TOPIC` or `topic`" + ` is set.
- ` + "`-Dname=value`" + ` counts as a flag if ` + "`name`" + ` is an old name, or the property for it: ` + "`-Dquarkus.http.port=8091`" + ` is ` +
	"`QUARKUS_HTTP_PORT`" + `,
  ` + "`-Dkafka.bootstrap=kafka:9092`" + ` is ` + "`KAFKA_BOOTSTRAP`" + `. Other ` + "`-D…` and `-X…`" + ` arguments are ignored with one warning.
- ` + "`QUARKUS_HTTP_PORT=8091`" + ` is ` + "`--listen :8091`" + `. In the two old durations a number without a unit is seconds.
- ` + "`target`, `target1`, `target2`" + `, … any number of them, are one URL each, together ` + "`--webhook-target`" + `.
- ` + "`TARGET_SERVICE_PORT`" + ` is read only while ` + "`TARGET_SERVICE_NAME`" + ` is set: Kubernetes sets it by itself next to a service named "target".
  Its ` + "`tcp://…`" + ` values for variables that end in ` + "`_PORT`" + ` are passed over.
`

// Docs is docs/config.md, generated from the settings themselves.
func Docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, c := range allCommands() {
		fmt.Fprintf(&b, "\n## kkv %s\n\n%s\n\n", c.name, c.help)
		_, old := c.settings.(*Serve)
		b.WriteString("| Flag | Environment |")
		if old {
			b.WriteString(" Old names |")
		}
		b.WriteString(" Default | Meaning |\n| --- | --- | --- | --- |")
		if old {
			b.WriteString(" --- |")
		}
		b.WriteString("\n")
		for _, s := range settingsOf(c.settings) {
			s.docsRow(&b, old)
		}
		if old {
			b.WriteString(docsServe)
		}
	}
	return b.String()
}

func (s setting) docsRow(b *strings.Builder, old bool) {
	cells := []string{code("--" + s.name), code(s.env())}
	if old {
		var names []string
		for _, o := range s.compat {
			name := code(o.name)
			if o.many {
				name += ", " + code(o.name+"1") + ", …"
			}
			names = append(names, name)
		}
		cells = append(cells, strings.Join(names, ", "))
	}
	cells = append(cells, code(s.tag.Get("default")), strings.ReplaceAll(s.tag.Get("help"), "__TOPIC__", code("__TOPIC__")))
	for i := range cells {
		cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
	}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
