package process

import "syscall"

// dieWithParent makes the kernel kill the child when the test binary dies, however it dies: a test that panics or runs into
// go test's timeout runs no cleanup, and would leave brokers behind.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
