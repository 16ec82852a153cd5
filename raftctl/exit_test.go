package raftctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

func TestEveryClassOfErrorHasItsExitCode(t *testing.T) {
	remote := func(code connect.Code) error {
		return fmt.Errorf("push plugin: %w", connect.NewWireError(code, errors.New("why")))
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
		{connect.NewError(connect.CodeUnimplemented, errors.New("404 Not Found")), exitUnhealthy}, // not of Millrace
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
		{fmt.Errorf("push plugin: %w", connect.NewWireError(connect.CodeInternal, errors.New("disk full"))), "raftctl: push plugin: disk full\n"},
		{connect.NewError(connect.CodeUnavailable, errors.New("refused")), "raftctl: refused\nhint: is a broker's admin listener at HOST:1? `raftctl dev up` starts a local cluster; --admin or a profile names another\n"},
		{connect.NewWireError(connect.CodeUnavailable, errors.New("raft id 7 is not level")), "raftctl: raft id 7 is not level\n"},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), "raftctl: wait: context deadline exceeded\nhint: raise --timeout, or see `raftctl cluster health`\n"},
		{fmt.Errorf("wait: %w", connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)),
			"raftctl: wait: no answer from HOST:1 within 2s\nhint: raise --timeout, or see `raftctl cluster health`\n"},
		{connect.NewError(connect.CodeUnknown, errors.New("501 Unsupported method")),
			"raftctl: what listens at HOST:1 is no admin listener of Millrace: 501 Unsupported method\nhint: --admin or a profile names another; one with TLS is https://HOST:PORT\n"},
	} {
		var text strings.Builder
		tool := &cli{errs: &text, admin: "HOST:1", timeout: 2 * time.Second}
		if tool.complain(c.err); text.String() != c.want {
			t.Errorf("%q, want %q", text.String(), c.want)
		}
	}
}

func TestErrorsForProgramsAreOneLineOfJSON(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{usageError("name a topic, or <two>"), `{"error":"name a topic, or <two>"}`},
		{connect.NewError(connect.CodeNotFound, errors.New("there is no topic x")), `{"error":"there is no topic x","code":"not_found"}`},
		{fmt.Errorf("produce to x: %w", kerr.NotEnoughReplicas),
			`{"error":"produce to x: ` + kerr.NotEnoughReplicas.Error() + `","code":"NOT_ENOUGH_REPLICAS"}`},
		{&hintedError{errors.Join(errors.New("one"), errors.New("two")), "do this"}, `{"error":"one\ntwo","hint":"do this"}`},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded),
			"{\"error\":\"wait: context deadline exceeded\",\"hint\":\"raise --timeout, or see `raftctl cluster health`\"}"},
	} {
		for _, form := range []string{formJSON, formYAML, formNDJSON} {
			var text strings.Builder
			tool := &cli{errs: &text, admin: "HOST:1", form: form}
			if tool.complain(c.err); text.String() != c.want+"\n" {
				t.Errorf("-o %s: %s, want %s", form, text.String(), c.want)
			}
		}
	}
}
