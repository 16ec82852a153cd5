package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeUserScramCredentials: v0
//
// Behaviour:
//   - the mechanisms and iterations of users, never their keys or salts; all users if none is named
//   - a user without a credential is RESOURCE_NOT_FOUND, one who is named twice DUPLICATE_RESOURCE

func (s *session) describeUserScramCredentials(req *kmsg.DescribeUserSCRAMCredentialsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	count := make(map[string]int, len(req.Users))
	var names []string
	for _, u := range req.Users {
		if count[u.Name]++; count[u.Name] == 1 {
			names = append(names, u.Name)
		}
	}
	byUser := map[string][]*metadata.ScramCredential{}
	for _, c := range s.Metadata.Image().ScramCredentials() {
		byUser[c.User] = append(byUser[c.User], c)
		if len(req.Users) == 0 && !slices.Contains(names[max(len(names)-1, 0):], c.User) {
			names = append(names, c.User)
		}
	}
	for _, name := range names {
		result := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		result.User = name
		var err error
		switch {
		case count[name] > 1:
			err = broker.Errorf(broker.DuplicateResource, "user %s is in the request %d times", name, count[name])
		case len(byUser[name]) == 0:
			err = broker.Errorf(broker.ResourceNotFound, "user %s has no credentials", name)
		}
		if err != nil {
			result.ErrorCode, result.ErrorMessage = s.fail(err), message(err)
			resp.Results = append(resp.Results, result)
			continue
		}
		for _, c := range byUser[name] {
			info := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
			info.Mechanism, info.Iterations = int8(c.Mechanism), int32(c.Iterations)
			result.CredentialInfos = append(result.CredentialInfos, info)
		}
		resp.Results = append(resp.Results, result)
	}
	return resp
}
