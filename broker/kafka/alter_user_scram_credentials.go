package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/scram"
)

// AlterUserScramCredentials: v0
//
// Behaviour:
//   - the client sends salted passwords; the broker keeps what proves them. All changes to one user are made together
//   - iterations from 4,096 to 16,384, else UNACCEPTABLE_CREDENTIAL; a mechanism that is not known is
//     UNSUPPORTED_SASL_MECHANISM; the removal of what is not there RESOURCE_NOT_FOUND; one credential named twice
//     DUPLICATE_RESOURCE
//   - the sessions that were let in by a changed credential end within a second (X8)

func (s *session) alterUserScramCredentials(ctx context.Context, req *kmsg.AlterUserSCRAMCredentialsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	for _, user := range usersOf(req) {
		result := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		result.User = user
		request, err := credentialsRequest(req, user)
		if err == nil {
			if _, err = s.Controller.Submit(ctx, request); err != nil {
				err = timedOut(ctx, err)
			}
		}
		if err != nil {
			result.ErrorCode, result.ErrorMessage = s.fail(err), message(err)
		}
		resp.Results = append(resp.Results, result)
	}
	return resp
}

// usersOf lists the users that a request is about, each once.
func usersOf(req *kmsg.AlterUserSCRAMCredentialsRequest) []string {
	var users []string
	seen := map[string]bool{}
	add := func(user string) {
		if !seen[user] {
			users = append(users, user)
		}
		seen[user] = true
	}
	for _, d := range req.Deletions {
		add(d.Name)
	}
	for _, u := range req.Upsertions {
		add(u.Name)
	}
	return users
}

func credentialsRequest(req *kmsg.AlterUserSCRAMCredentialsRequest, user string) (controller.AlterCredentials, error) {
	request := controller.AlterCredentials{User: user}
	for _, d := range req.Deletions {
		if d.Name == user {
			mechanism, err := knownMechanism(d.Mechanism)
			if err != nil {
				return request, err
			}
			request.Remove = append(request.Remove, mechanism)
		}
	}
	for _, u := range req.Upsertions {
		if u.Name != user {
			continue
		}
		mechanism, err := knownMechanism(u.Mechanism)
		if err != nil {
			return request, err
		}
		if len(u.SaltedPassword) == 0 { // One of another length than the hash's works for those who send the same.
			return request, broker.Errorf(broker.UnacceptableCredential, "an empty salted password")
		}
		// The salt lies in the frame, which is used again.
		key := metadata.CredentialKey{User: user, Mechanism: mechanism}
		request.Set = append(request.Set, scram.Credential(key, u.SaltedPassword, bytes.Clone(u.Salt), int(u.Iterations)))
	}
	return request, nil
}

func knownMechanism(number int8) (metadata.ScramMechanism, error) {
	if number != int8(metadata.ScramSHA256) && number != int8(metadata.ScramSHA512) {
		return 0, broker.Errorf(broker.UnsupportedSaslMechanism, "SCRAM mechanism %d is not known", number)
	}
	return metadata.ScramMechanism(number), nil
}
