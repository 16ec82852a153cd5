package raftctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

func TestEveryClassOfErrorHasItsExitCode(t *testing.T) {
	remote := func(code connect.Code) error {
		return fmt.Errorf("push plugin: %w", connect.NewError(code, errors.New("why")))
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{errors.New("any"), exitError},
		{context.Canceled, exitError},
		{remote(connect.CodeInternal), exitError},
		{remote(connect.CodeAlreadyExists), exitError},
		{remote(connect.CodeUnimplemented), exitError},
		{usageError("u"), exitUsage},
		{remote(connect.CodeInvalidArgument), exitUsage},
		{kerr.InvalidTopicException, exitUsage},
		{notFound("n"), exitNotFound},
		{remote(connect.CodeNotFound), exitNotFound},
		{fmt.Errorf("fetch: %w", kerr.UnknownTopicOrPartition), exitNotFound},
		{kerr.GroupIDNotFound, exitNotFound},
		{unhealthy("u"), exitUnhealthy},
		{remote(connect.CodeUnavailable), exitUnhealthy},
		{remote(connect.CodeDeadlineExceeded), exitUnhealthy},
		{context.DeadlineExceeded, exitUnhealthy},
		{kerr.NotLeaderForPartition, exitUnhealthy},
		{kgo.ErrRecordRetries, exitUnhealthy},
		{refused("r"), exitRefused},
		{remote(connect.CodeFailedPrecondition), exitRefused},
		{kerr.PolicyViolation, exitRefused},
		{fmt.Errorf("fetch: %w", sdk.ErrChainRequired), exitRefused},
		{kerr.MessageTooLarge, exitError},
		{errors.Join(errors.New("first"), refused("r")), exitRefused},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestErrorsOfTheAPIAreToldWithoutItsCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{connect.NewError(connect.CodeNotFound, errors.New("there is no topic x")), "raftctl: there is no topic x\n"},
		{fmt.Errorf("push plugin: %w", connect.NewError(connect.CodeInternal, errors.New("disk full"))), "raftctl: push plugin: disk full\n"},
		{connect.NewError(connect.CodeUnavailable, errors.New("refused")), "raftctl: refused\nhint: is a broker's admin listener at HOST:1? `raftctl dev up` starts a local cluster; --admin or a profile names another\n"},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), "raftctl: wait: context deadline exceeded\nhint: raise --timeout, or see `raftctl cluster health`\n"},
	} {
		var text strings.Builder
		if complain(&text, c.err, "HOST:1"); text.String() != c.want {
			t.Errorf("%q, want %q", text.String(), c.want)
		}
	}
}
