package raftctl

import (
	"context"
	"errors"
	"fmt"

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
