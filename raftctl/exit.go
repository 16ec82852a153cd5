package raftctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/sdk"
)

// Exit codes.
const (
	exitDone      = 0
	exitError     = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitUnhealthy = 4
	exitRefused   = 5
)

// codedError is an error that knows its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

func refused(format string, args ...any) error {
	return &codedError{exitRefused, fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &codedError{exitNotFound, fmt.Errorf(format, args...)}
}

func unhealthy(format string, args ...any) error {
	return &codedError{exitUnhealthy, fmt.Errorf(format, args...)}
}

// exitCode maps an error to the code that the process ends with.
func exitCode(err error) int {
	var coded *codedError
	var remote *connect.Error
	var protocol *kerr.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &remote):
		if notMillrace(remote) {
			return exitUnhealthy
		}
		return connectExitCode(remote.Code())
	case errors.As(err, &protocol):
		return kafkaExitCode(protocol)
	case errors.Is(err, sdk.ErrChainRequired):
		return exitRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return exitUnhealthy
	}
	return exitError
}

func connectExitCode(code connect.Code) int {
	switch code {
	case connect.CodeNotFound:
		return exitNotFound
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return exitUnhealthy
	case connect.CodeFailedPrecondition:
		return exitRefused
	case connect.CodeInvalidArgument:
		return exitUsage
	default:
		return exitError
	}
}

func kafkaExitCode(err *kerr.Error) int {
	switch err {
	case kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.GroupIDNotFound:
		return exitNotFound
	case kerr.PolicyViolation:
		return exitRefused
	case kerr.InvalidTopicException:
		return exitUsage
	}
	if err.Retriable {
		return exitUnhealthy
	}
	return exitError
}

// notMillrace reports that what answered is no admin listener: there is an answer, and it is not one of the protocol's.
func notMillrace(err *connect.Error) bool {
	switch err.Code() {
	case connect.CodeUnknown, connect.CodeUnimplemented, connect.CodeInternal: // what connect makes of any HTTP answer
		return !connect.IsWireError(err) && !errors.Is(err, proto.Error)
	}
	return false
}

// complain prints an error for a person: what happened and, where it is known, what to do.
func (c *cli) complain(err error) {
	message := err.Error()
	var remote *connect.Error
	if errors.As(err, &remote) {
		told := remote.Message()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			told = fmt.Sprintf("no answer from %s within %s", c.admin, c.timeout)
		case notMillrace(remote):
			told = fmt.Sprintf("what listens at %s is no admin listener of Millrace: %s", c.admin, told)
		}
		message = told
		if prefix, _, found := strings.Cut(err.Error(), remote.Error()); found {
			message = prefix + told
		}
	}
	fmt.Fprintln(c.errs, "raftctl:", message)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintln(c.errs, "hint: raise --timeout, or see `raftctl cluster health`")
	case remote != nil && notMillrace(remote):
		fmt.Fprintln(c.errs, "hint: --admin or a profile names another; one with TLS is https://HOST:PORT")
	case remote != nil && remote.Code() == connect.CodeUnavailable && !connect.IsWireError(err):
		fmt.Fprintf(c.errs, "hint: is a broker's admin listener at %s? `raftctl dev up` starts a local cluster; --admin or a profile names another\n", c.admin)
	}
}
