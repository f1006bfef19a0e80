package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/kkv-project/kkv/internal/config"
)

// printSettings is `kkv config`: the settings in force, then what would keep them from running.
func printSettings(cmd *config.Command, stdout, stderr io.Writer) int {
	if err := cmd.Print(stdout); err != nil {
		return fail(stderr, err)
	}
	if cmd.Faults != nil {
		fmt.Fprintln(stderr, cmd.Faults)
		return exitUsage
	}
	return exitOK
}

// printText is what needs no settings: `kkv --version` and `kkv config --docs`. Parse has printed the help by itself.
func printText(name string, stdout io.Writer) error {
	var err error
	switch name {
	case "version":
		_, err = fmt.Fprintln(stdout, version())
	case "docs":
		_, err = io.WriteString(stdout, config.Docs())
	}
	return err
}

// fail reports an error of a command that has no log, and gives the exit code.
func fail(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "kkv:", err)
	return exitError
}

// version is what the Go toolchain knows about this binary: module version, commit, Go version.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "kkv (unknown version)"
	}
	version, commit, modified := info.Main.Version, "", ""
	if version == "" {
		version = "(devel)"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = " " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " with local changes"
		}
	}
	return "kkv " + version + commit + modified + " " + info.GoVersion
}
