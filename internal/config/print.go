package config

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Print writes the settings in force as YAML that --config takes, with the source of each as a comment. Secrets are
// masked and stand in comments, so that a mask is never loaded as a secret. It does nothing without Settings.
func (c *Command) Print(w io.Writer) error {
	if c.Settings == nil {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# What kkv %s runs with. Each line names its source: flag > environment > file > default.\n", c.of)
	if c.file != "" {
		fmt.Fprintf(&b, "# The file is %q.\n", c.file)
	}
	for _, s := range settingsOf(c.Settings) {
		source, ok := c.Sources[s.name]
		if !ok {
			fmt.Fprintf(&b, "# %s:  # could not be read\n", s.name)
			continue
		}
		source.Name = strings.ReplaceAll(source.Name, "\n", " ") // a path, within a comment
		if s.has("hidden") && source.Kind == FromDefault {
			continue
		}
		if s.isList() {
			s.printList(&b, source)
			continue
		}
		value, secret := s.mask(s.values()[0])
		text := s.yaml(value)
		if secret {
			fmt.Fprintf(&b, "# %s: %s  # %s; masked\n", s.name, text, source)
		} else {
			fmt.Fprintf(&b, "%s: %s  # %s\n", s.name, text, source)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printList writes a list over several lines; one whose values are all masked is a comment as a whole.
func (s setting) printList(b *strings.Builder, source Source) {
	var lines []string
	shown := 0
	for _, v := range s.values() {
		v, secret := s.mask(v)
		if secret {
			lines = append(lines, "#  - "+yamlString(v)+"  # masked")
		} else {
			lines = append(lines, "  - "+yamlString(v))
			shown++
		}
	}
	switch {
	case len(lines) == 0:
		fmt.Fprintf(b, "%s: []  # %s\n", s.name, source)
		return
	case shown == 0:
		fmt.Fprintf(b, "# %s:  # %s\n", s.name, source)
	default:
		fmt.Fprintf(b, "%s:  # %s\n", s.name, source)
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
}

// yaml writes a scalar: strings quoted where they must be, all else plain.
func (s setting) yaml(text string) string {
	if s.field.Kind() == reflect.String {
		return yamlString(text)
	}
	return text
}

// yamlString is text on one line.
func yamlString(text string) string {
	if out, err := yaml.Marshal(text); err == nil && strings.Count(string(out), "\n") == 1 {
		return strings.TrimSuffix(string(out), "\n")
	}
	var b strings.Builder // JSON's strings are YAML's
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
