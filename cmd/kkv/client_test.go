package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kkv-project/kkv/internal/devbroker"
	"github.com/kkv-project/kkv/internal/kafka"
	"github.com/kkv-project/kkv/internal/node"
)

// TestClientScript runs testdata/client: sessions with a cache of their own, which KKV_SERVER names; $READONLY names a
// replica of it that takes no writes, and $NOBODY where nobody listens.
func TestClientScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/client", Deadline: time.Now().Add(time.Minute), RequireExplicitExec: true, RequireUniqueNames: true, Setup: func(e *testscript.Env) error {
		b, err := devbroker.Start(devbroker.Options{Listen: "127.0.0.1:0"})
		if err != nil {
			return err
		}
		e.Defer(func() { _ = b.Close() })
		if err := b.CreateTopic("fruits", 2); err != nil {
			return err
		}
		conf := kafka.Config{Bootstrap: []string{b.Addr()}, Logger: slog.New(slog.DiscardHandler)}
		for name, writable := range map[string]bool{"KKV_SERVER": true, "READONLY": false} {
			url, err := startNode(e, conf, writable)
			if err != nil {
				return err
			}
			e.Setenv(name, url)
		}
		e.Setenv("NOBODY", "http://127.0.0.1:1")
		return nil
	}, Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus, "readenv": readEnv}})
}

// wantStatus is `status N command…`: it ends with that exit code.
func wantStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// readEnv is `readenv NAME`: the variable is what the file of that name holds.
func readEnv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[0])))
}

func startNode(e *testscript.Env, conf kafka.Config, writable bool) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	n, err := node.New(node.Options{Kafka: conf, Topic: "fruits", Listener: l, Writable: writable, Quiet: true, Logger: conf.Logger})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, time.Second) }()
	e.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			e.T().Fatal("the cache: ", err)
		}
	})
	rctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	return "http://" + l.Addr().String(), n.Cache().Listable(rctx)
}

func TestFormat(t *testing.T) {
	for text, want := range map[string]string{
		"%":     "ends in %",
		`%k\`:   `ends in \`,
		"%x":    "%x, which is unknown",
		`\q`:    `\q, which is unknown`,
		"%k %":  "ends in %",
		"%%%%x": "",
		"json":  "",
		"":      "",
	} {
		_, err := parseFormat(text, nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
