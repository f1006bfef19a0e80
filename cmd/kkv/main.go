// Command kkv is a never-stale, update-pushing key-value cache on Kafka: the cache, the gateway, a demo application, all
// of them in one process for development, and commands that ask a cache.
//
// Exit codes: 0; 1 for an error while running; 2 for a command line or settings that cannot be run; 4 where a key has no
// value and 5 where a cache is not as fresh as was asked for; for `kkv serve` also the code that its management listener's
// shutdown was asked for.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	_ "golang.org/x/crypto/x509roots/fallback" // for TLS with Kafka where there are no certificates beside us, as in our image

	"github.com/kkv-project/kkv/internal/config"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run does what the arguments say and returns the exit code.
func run(args, env []string, stdout, stderr io.Writer) int {
	cmd, err := config.Parse(args, env, stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	if cmd.Settings == nil {
		return fail(stderr, printText(cmd.Name, stdout))
	}
	logger := cmd.Settings.Logger(stderr)
	for _, warning := range cmd.Warnings {
		logger.Warn(warning)
	}
	if cmd.Name == "config" {
		return printSettings(cmd, stdout, stderr)
	}

	// The first signal ends the command in good order. From then on signals have their usual effect, so that a second
	// one kills at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	err = dispatch(ctx, cmd, stdout, logger)
	if asked, ok := errors.AsType[*clientError](err); ok { // a person or a script is waiting for it: no log line
		for line := range strings.Lines(asked.text) {
			line = strings.TrimSuffix(strings.TrimPrefix(line, "kkv: "), "\n") // as package kkv begins its errors
			fmt.Fprintf(stderr, "kkv %s: %s\n", cmd.Name, line)
		}
		return asked.code
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitOK
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	logger.Error(fmt.Sprintf("kkv %s: %v", cmd.Name, err))
	return exitError
}

// dispatch runs the command until it ends or ctx does.
func dispatch(ctx context.Context, cmd *config.Command, stdout io.Writer, logger *slog.Logger) error {
	switch s := cmd.Settings.(type) {
	case *config.Serve:
		return runServe(ctx, cmd, s, logger)
	case *config.Gateway:
		return runGateway(ctx, s, logger)
	case *config.Dev:
		return runDev(ctx, s, stdout, logger)
	case *config.Demo:
		return runDemo(ctx, s, logger)
	}
	return runClient(ctx, cmd.Settings, stdout, logger)
}
