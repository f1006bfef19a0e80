package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is a --config file: a YAML mapping from flag names to values.
type file struct {
	path   string
	values map[string]*yaml.Node
	order  []string
}

// readFile reads the file at path and refuses what is not a flat mapping.
func readFile(path string) (*file, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: give the path of a readable YAML file, or leave it out", err)
	}
	f := &file{path: path, values: map[string]*yaml.Node{}}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return f, nil // empty, or comments only
	case err != nil:
		return nil, fmt.Errorf("%s is not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s holds more than one YAML document: keep the first alone", path)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return f, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d is not a mapping: write lines such as `topic: orders`", path, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if before, ok := f.values[key.Value]; ok {
			return nil, fmt.Errorf("%s:%d has %q a second time, after line %d: keep one", path, key.Line, key.Value, before.Line)
		}
		f.values[key.Value] = value
		f.order = append(f.order, key.Value)
	}
	return f, nil
}

// source is the place of a key's value.
func (f *file) source(key string) Source {
	return Source{Kind: FromFile, Name: fmt.Sprintf("%s:%d", f.path, f.values[key].Line)}
}

// texts are the scalars under key: those of a list, or one.
func (f *file) texts(key string) (texts []string, list bool, err error) {
	node := resolveAlias(f.values[key])
	switch {
	case node.Kind == yaml.SequenceNode:
		for _, item := range node.Content {
			if item = resolveAlias(item); item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, true, fmt.Errorf("line %d holds something other than a value: list plain values", item.Line)
			}
			texts = append(texts, item.Value)
		}
		return texts, true, nil
	case node.Kind != yaml.ScalarNode:
		return nil, false, errors.New("is a mapping: give a value")
	case node.Tag == "!!null":
		return nil, false, errors.New("has no value: give one, or remove the line")
	}
	return []string{node.Value}, false, nil
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
