package raftctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kerr"
)

// hintedError is an error that knows what to do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// complaint is an error as it is told: what happened, to what, and what to do next.
type complaint struct {
	Error string `json:"error"`
	Code  string `json:"code,omitempty"` // a broker's: the name of Kafka's or of Connect's error
	Hint  string `json:"hint,omitempty"`
}

// complain tells of an error on standard error: to a person in words, to a program as one line of JSON.
func (c *cli) complain(err error) {
	told := c.complaint(err)
	if c.forPrograms() {
		encoder := json.NewEncoder(c.errs)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(told) // Strings always encode, and nobody is left to tell of a closed standard error.
		return
	}
	fmt.Fprintln(c.errs, "raftctl:", told.Error)
	if told.Hint != "" {
		fmt.Fprintln(c.errs, "hint:", told.Hint)
	}
}

func (c *cli) complaint(err error) complaint {
	told := complaint{Error: err.Error()}
	var remote *connect.Error
	var protocol *kerr.Error
	switch {
	case errors.As(err, &remote):
		message := remote.Message()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			message = fmt.Sprintf("no answer from %s within %s", c.admin, c.timeout)
		case notMillrace(remote):
			message = fmt.Sprintf("what listens at %s is no admin listener of Millrace: %s", c.admin, message)
		}
		prefix, _, _ := strings.Cut(told.Error, remote.Error())
		if prefix == told.Error {
			prefix = ""
		}
		told.Error, told.Code = prefix+message, remote.Code().String()
	case errors.As(err, &protocol):
		told.Code = protocol.Message
	}
	told.Hint = c.hint(err, remote)
	return told
}

// hint says what to do about an error, where that is known.
func (c *cli) hint(err error, remote *connect.Error) string {
	var hinted *hintedError
	switch {
	case errors.As(err, &hinted):
		return hinted.hint
	case errors.Is(err, context.DeadlineExceeded):
		return "raise --timeout, or see `raftctl cluster health`"
	case remote == nil:
		return ""
	case notMillrace(remote):
		return "--admin or a profile names another; one with TLS is https://HOST:PORT"
	case remote.Code() == connect.CodeUnavailable && !connect.IsWireError(err):
		return fmt.Sprintf("is a broker's admin listener at %s? `raftctl dev up` starts a local cluster; --admin or a profile names another", c.admin)
	}
	return ""
}
