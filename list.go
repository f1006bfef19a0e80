package kkv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"

	"github.com/kkv-project/kkv/internal/wire"
)

// List is every live key that begins with prefix, in the order of their bytes, all at one position. It asks when it is
// iterated and reads the answer as it goes, so a list may be larger than memory; a loop that takes longer than the
// server's --list-timeout ends with an error. An error is the last element.
func (c *Client) List(ctx context.Context, prefix string, how ...ReadOption) iter.Seq2[Entry, error] {
	return c.list(ctx, prefix, "true", how)
}

// Keys is List without the values.
func (c *Client) Keys(ctx context.Context, prefix string, how ...ReadOption) iter.Seq2[Entry, error] {
	return c.list(ctx, prefix, "false", how)
}

func (c *Client) list(ctx context.Context, prefix, values string, how []ReadOption) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		err := c.eachEntry(ctx, "/keys?values="+values+"&prefix="+escape(prefix), how, func(e Entry) error {
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, fmt.Errorf("kkv: list %s: %w", strconv.Quote(prefix), err))
		}
	}
}

// eachEntry calls f with the lines of the first server's answer. Once one has come no other server is asked: its list
// would be of another position.
func (c *Client) eachEntry(ctx context.Context, path string, how []ReadOption, f func(Entry) error) error {
	topic, err := c.topicPath(ctx)
	if err != nil {
		return err
	}
	var broke error
	err = c.eachServer(ctx, topic+path, how, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return statusError(resp)
		}
		if p, err := ParsePosition(resp.Header.Get("Kkv-Position")); err == nil {
			c.saw(p) // before f may make reads of its own
		}
		begun := false
		err := readEntries(resp.Body, func(e Entry) error {
			begun = true
			return f(e)
		})
		if begun {
			broke, err = err, nil
		}
		return err
	})
	return errors.Join(err, broke)
}

func readEntries(r io.Reader, f func(Entry) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readLine(lines, buf[:0]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the list broke off: %w", err)
		}
		l, err := wire.ParseNDJSON(buf)
		switch {
		case err != nil:
			return err
		case l.Type != wire.Put:
			return fmt.Errorf("the list broke off: %s", firstLine(string(buf)))
		}
		if err := f(entryOf(&l)); err != nil {
			return err
		}
	}
}
