package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run this very binary as the command kkv.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kkv": main})
}

// TestScript runs testdata/script: each file is a session at a shell, with an environment that holds nothing of ours.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
