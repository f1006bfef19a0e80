package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/kkv-project/kkv"
	"github.com/kkv-project/kkv/internal/config"
)

// Exit codes of the commands that ask a cache, beside those of all.
const (
	exitNotFound = 4 // the key has no value
	exitStale    = 5 // the cache did not become as fresh as was asked for
)

// clientError is what a command that asks a cache ended with: for people, and as an exit code for scripts.
type clientError struct {
	code int
	text string
}

func (e *clientError) Error() string { return e.text }

// errReaderGone: whoever reads what is printed has closed the pipe.
var errReaderGone = errors.New("the reader has closed the pipe")

// usage is an argument that only the command itself can judge.
func usage(format string, args ...any) error {
	return &clientError{exitUsage, fmt.Sprintf(format, args...)}
}

// runClient runs one of the commands that ask a cache. Its error is a *clientError.
func runClient(ctx context.Context, s config.Settings, stdout io.Writer, logger *slog.Logger) (err error) {
	signal.Ignore(syscall.SIGPIPE) // a reader that has enough is an error of writing, and a good end
	ctx, stop := untilClosed(ctx, stdout)
	defer stop()
	switch s := s.(type) {
	case *config.Get:
		err = runGet(ctx, s, stdout, logger)
	case *config.Ls:
		err = runLs(ctx, s, stdout, logger)
	case *config.Put:
		err = runPut(ctx, s, stdout, logger)
	case *config.Del:
		err = runDel(ctx, s, stdout, logger)
	case *config.Watch:
		err = runWatch(ctx, s, stdout, logger)
	case *config.Status:
		err = runStatus(ctx, s, stdout)
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(context.Cause(ctx), errReaderGone) {
		return nil
	}
	return asClientError(err)
}

func asClientError(err error) error {
	var own *clientError
	var refused *kkv.StatusError
	switch {
	case err == nil || errors.As(err, &own):
		return err
	case errors.Is(err, kkv.ErrBehind), errors.Is(err, kkv.ErrTooStale):
		return &clientError{exitStale, err.Error()}
	case errors.Is(err, context.Canceled):
		return &clientError{exitError, "interrupted"}
	case errors.Is(err, context.DeadlineExceeded):
		return &clientError{exitError, err.Error() + ": no answer within --timeout"}
	case !errors.As(err, &refused) && errors.Is(err, syscall.ECONNREFUSED):
		return &clientError{exitError, err.Error() + ": name a cache that runs by --server or KKV_SERVER"}
	}
	return &clientError{exitError, err.Error()}
}

// newClient is the Go client for what the settings name.
func newClient(c config.Client, logger *slog.Logger) (*kkv.Client, error) {
	cl, err := kkv.NewClient(kkv.Options{Servers: c.Server, Topic: c.Topic, Token: c.Token, Logger: logger})
	if err != nil {
		return nil, usage("%v", err)
	}
	return cl, nil
}

// readOptions are how fresh a read is to be.
func readOptions(r *config.Read) (how []kkv.ReadOption, err error) {
	if r.Fresh {
		how = append(how, kkv.Fresh())
	}
	if d, asked := r.Stale(); asked {
		how = append(how, kkv.MaxStale(d))
	}
	for _, text := range r.AtLeast {
		if record, offset, ok := strings.Cut(text, ":"); ok { // what a producer knows
			_, err := strconv.ParseUint(record, 10, 31)
			_, err2 := strconv.ParseUint(offset, 10, 63)
			if err != nil || err2 != nil {
				return nil, usage("--at-least %q is neither a position nor partition:offset", text)
			}
			how = append(how, func(h http.Header) { h.Add("Kkv-At-Least", text) })
			continue
		}
		p, err := kkv.ParsePosition(text)
		if err != nil {
			return nil, usage("--at-least: %v; give one that kkv put or another command printed", err)
		}
		how = append(how, kkv.AtLeast(p))
	}
	return how, nil
}

// decodeKey reads a key of the command line.
func decodeKey(k *config.Keys, key string) (string, error) {
	if k.KeyEncoding != "base64url" {
		return key, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(key, "="))
	if err != nil {
		return "", usage("the key %q is not base64url (RFC 4648, section 5): %v", key, err)
	}
	return string(b), nil
}

// appendKey writes a key as the command line takes it.
func appendKey(b []byte, k *config.Keys, key []byte) []byte {
	if k.KeyEncoding != "base64url" {
		return append(b, key...)
	}
	return base64.RawURLEncoding.AppendEncode(b, key)
}

// isTerminal reports whether people read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
