package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kkv-project/kkv/internal/position"
)

const (
	cursorsVersion = 1
	saveEvery      = time.Second
	// keepUnlisted is for how long a cursor is kept of a target that no source has listed since the start.
	keepUnlisted = time.Hour
)

// cursors are how far each target has been told, on disk, so that a restart goes on from there. Only the Dispatcher's
// save touches the file.
type cursors struct {
	file    string
	head    cursorsFile // without targets
	kept    map[string]position.Position
	began   time.Time
	written []byte
	failing bool
}

type cursorsFile struct {
	Version int                          `json:"version"`
	Topic   string                       `json:"topic"`
	Body    string                       `json:"body"`    // what v1 has told is not enough for v2
	Targets map[string]position.Position `json:"targets"` // by ID; "": is to be told the whole state
}

// openCursors reads the file, which need not exist. What is in it but cannot be used is left aside with a warning, for
// a cache that does not start is worse than a target that is told too much; a file that cannot be read or written is
// an error.
func (d *Dispatcher) openCursors() error {
	c := &d.cursors
	c.file, c.began, c.kept = d.o.Resume, time.Now(), map[string]position.Position{}
	c.head = cursorsFile{Version: cursorsVersion, Topic: d.o.Topic, Body: d.form.name()}
	b, err := os.ReadFile(c.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read webhook cursors: %w; %s", err, fileHint)
	default:
		var f cursorsFile
		switch err := json.Unmarshal(b, &f); {
		case err != nil:
			d.o.Logger.Warn("the file of webhook cursors cannot be used: targets start as without it", "file", c.file, "error", err)
		case f.Version != c.head.Version || f.Topic != c.head.Topic || f.Body != c.head.Body:
			d.o.Logger.Warn("the file of webhook cursors is of another topic, body or version: targets start as without it", "file", c.file,
				"version", f.Version, "topic", f.Topic, "body", f.Body)
		default:
			c.kept = f.Targets
		}
	}
	if err := d.saveCursors(); err != nil {
		return fmt.Errorf("save webhook cursors: %w; %s", err, fileHint)
	}
	return nil
}

const fileHint = "name by --webhook-resume a file that kkv may read and replace"

// keepCursors saves once a second until ctx ends.
func (d *Dispatcher) keepCursors(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := d.saveCursors()
		if c := &d.cursors; (err != nil) != c.failing {
			c.failing = err != nil
			if c.failing {
				d.o.Logger.Warn("webhook cursors cannot be saved; after a restart targets may be told again what they were told", "error", err)
			} else {
				d.o.Logger.Info("webhook cursors are saved again", "file", c.file)
			}
		}
	}
}

// saveCursors writes the file if it would say something new.
func (d *Dispatcher) saveCursors() error {
	c := &d.cursors
	f := c.head
	f.Targets = map[string]position.Position{}
	d.mu.Lock()
	if time.Since(c.began) < keepUnlisted {
		for id, pos := range c.kept {
			f.Targets[id] = pos
		}
	}
	for id, t := range d.targets {
		if pos, ok := t.cursor(); ok {
			f.Targets[id] = pos
		}
	}
	d.mu.Unlock()
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if b = append(b, '\n'); bytes.Equal(b, c.written) {
		return nil
	}
	if err := replaceFile(c.file, b); err != nil {
		return err
	}
	c.written = b
	return nil
}

// take is what is kept of a target that is listed now. d.mu is held.
func (c *cursors) take(id string) (pos position.Position, ok bool) {
	pos, ok = c.kept[id]
	delete(c.kept, id)
	return pos, ok
}

// replaceFile makes b the file's content: the old or the new one is found whatever happens.
func replaceFile(name string, b []byte) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
