package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// untilClosed ends the context when the reader of stdout has gone, also while there is nothing to write: `kkv watch |
// head -1` is over with the first line, not with the second.
func untilClosed(ctx context.Context, stdout io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if f, ok := stdout.(*os.File); ok {
		go func() { // it ends with the process: nothing wakes it from a pipe that stays open
			fds := []unix.PollFd{{Fd: int32(f.Fd())}} // no event but the pipe's error
			for {
				n, err := unix.Poll(fds, -1)
				switch {
				case errors.Is(err, unix.EINTR):
				case err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
					cancel(errReaderGone)
					return
				default:
					return
				}
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}
