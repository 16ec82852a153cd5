package golden

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The brokers have an authorizer, and who asks is a superuser (docs of package compat, goldens.go).

func securityChapters() []chapter {
	return []chapter{
		{key: kmsg.CreateACLs, story: createACLsStory},
		{key: kmsg.DescribeACLs, questions: describeACLsQuestions()},
		{key: kmsg.DeleteACLs, story: deleteACLsStory},
		{key: kmsg.AlterUserSCRAMCredentials, questions: alterUsersQuestions()},
		{key: kmsg.DescribeUserSCRAMCredentials, story: describeUsersStory},
		{key: kmsg.AlterClientQuotas, questions: alterQuotasQuestions()},
		{key: kmsg.DescribeClientQuotas, story: describeQuotasStory},
		// Where there is no SASL; guardedChapters ask where there is.
		{key: kmsg.SASLHandshake, questions: []question{{"where there is no SASL", 0, func(*script, int16) kmsg.Request { return handshake("PLAIN") }}}},
		{key: kmsg.SASLAuthenticate, questions: []question{{"where there is no SASL", 0, func(*script, int16) kmsg.Request { return authenticate(nil) }}}},
	}
}

// rule is an access rule that lets a user read a topic.
func readRule(topic string) kmsg.CreateACLsRequestCreation {
	r := kmsg.NewCreateACLsRequestCreation()
	r.ResourceType, r.ResourceName, r.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral
	r.Principal, r.Host, r.Operation, r.PermissionType = "User:golden", "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
	return r
}

func createACLsStory(s *script, v int16) error {
	topic := named("acl", v)
	for _, one := range []struct {
		label  string
		change func(*kmsg.CreateACLsRequestCreation)
	}{
		{"good", func(*kmsg.CreateACLsRequestCreation) {}},
		{"again", func(*kmsg.CreateACLsRequestCreation) {}},
		{"prefixed", func(r *kmsg.CreateACLsRequestCreation) { r.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed }},
		{"any topic", func(r *kmsg.CreateACLsRequestCreation) { r.ResourceName = "*" }},
		{"a pattern that matches", func(r *kmsg.CreateACLsRequestCreation) { r.ResourcePatternType = kmsg.ACLResourcePatternTypeMatch }},
		{"any operation", func(r *kmsg.CreateACLsRequestCreation) { r.Operation = kmsg.ACLOperationAny }},
		{"an operation that is none of topics", func(r *kmsg.CreateACLsRequestCreation) { r.Operation = kmsg.ACLOperationClusterAction }},
		{"no such operation", func(r *kmsg.CreateACLsRequestCreation) { r.Operation = 77 }},
		{"any permission", func(r *kmsg.CreateACLsRequestCreation) { r.PermissionType = kmsg.ACLPermissionTypeAny }},
		{"any resource", func(r *kmsg.CreateACLsRequestCreation) { r.ResourceType = kmsg.ACLResourceTypeAny }},
		{"no name", func(r *kmsg.CreateACLsRequestCreation) { r.ResourceName = "" }},
		{"no principal", func(r *kmsg.CreateACLsRequestCreation) { r.Principal = "" }},
		{"a principal without a type", func(r *kmsg.CreateACLsRequestCreation) { r.Principal = "golden" }},
		{"another cluster", func(r *kmsg.CreateACLsRequestCreation) { r.ResourceType = kmsg.ACLResourceTypeCluster }},
	} {
		req := kmsg.NewPtrCreateACLsRequest()
		r := readRule(topic)
		one.change(&r)
		req.Creations = append(req.Creations, r)
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
	}
	two := kmsg.NewPtrCreateACLsRequest()
	bad := readRule("")
	two.Creations = append(two.Creations, readRule(topic+"-too"), bad)
	if err := s.tell("one good and one bad", v, two); err != nil {
		return err
	}
	if err := s.tell("nothing", v, kmsg.NewPtrCreateACLsRequest()); err != nil {
		return err
	}
	return s.silently(func() error { // A broker may learn of rules a little after they are answered for.
		return s.until(v, describeACLs(ptr(topic+"-too"), kmsg.ACLResourcePatternTypeLiteral), func(r kmsg.Response) bool {
			return len(r.(*kmsg.DescribeACLsResponse).Resources) == 1
		})
	})
}

// describeACLs asks for the rules of a topic; of any without a name.
func describeACLs(topic *string, pattern kmsg.ACLResourcePatternType) *kmsg.DescribeACLsRequest {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName, req.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, pattern
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	return req
}

func describeACLsQuestions() []question {
	ask := func(topic *string, pattern kmsg.ACLResourcePatternType, change func(*kmsg.DescribeACLsRequest)) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request {
			req := describeACLs(topic, pattern)
			if change != nil {
				change(req)
			}
			return req
		}
	}
	topic := ptr(named("acl", 1))
	return []question{
		{"all", 0, ask(nil, kmsg.ACLResourcePatternTypeAny, nil)},
		{"one topic", 0, ask(topic, kmsg.ACLResourcePatternTypeLiteral, nil)},
		{"matching", 0, ask(ptr(*topic+"-and-more"), kmsg.ACLResourcePatternTypeMatch, nil)},
		{"prefixed", 0, ask(topic, kmsg.ACLResourcePatternTypePrefixed, nil)},
		{"one user", 0, ask(topic, kmsg.ACLResourcePatternTypeAny, func(r *kmsg.DescribeACLsRequest) { r.Principal = ptr("User:golden") })},
		{"unknown user", 0, ask(topic, kmsg.ACLResourcePatternTypeAny, func(r *kmsg.DescribeACLsRequest) { r.Principal = ptr("User:nobody") })},
		{"unknown pattern", 0, ask(topic, 0, nil)},
		{"unknown operation", 0, ask(topic, kmsg.ACLResourcePatternTypeAny, func(r *kmsg.DescribeACLsRequest) { r.Operation = 0 })},
		{"unknown permission", 0, ask(topic, kmsg.ACLResourcePatternTypeAny, func(r *kmsg.DescribeACLsRequest) { r.PermissionType = 77 })},
		{"unknown resource", 0, ask(topic, kmsg.ACLResourcePatternTypeAny, func(r *kmsg.DescribeACLsRequest) { r.ResourceType = 0 })},
	}
}

func deleteACLsStory(s *script, v int16) error {
	filter := func(topic *string, pattern kmsg.ACLResourcePatternType) kmsg.DeleteACLsRequestFilter {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, pattern
		f.Operation, f.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		return f
	}
	topic := ptr(named("acl", v))
	unknown := filter(topic, 0)
	for _, one := range []struct {
		label   string
		filters []kmsg.DeleteACLsRequestFilter
	}{
		{"one topic", []kmsg.DeleteACLsRequestFilter{filter(topic, kmsg.ACLResourcePatternTypeLiteral)}},
		{"again", []kmsg.DeleteACLsRequestFilter{filter(topic, kmsg.ACLResourcePatternTypeLiteral)}},
		{"a good filter and a bad one", []kmsg.DeleteACLsRequestFilter{filter(topic, kmsg.ACLResourcePatternTypePrefixed), unknown}},
		{"no filter", nil},
	} {
		req := kmsg.NewPtrDeleteACLsRequest()
		req.Filters = one.filters
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
		// What is deleted must be known before it is asked for again.
		err := s.silently(func() error {
			return s.until(v, describeACLs(topic, kmsg.ACLResourcePatternTypeLiteral), func(r kmsg.Response) bool {
				return len(r.(*kmsg.DescribeACLsResponse).Resources) == 0
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// upsert is a password of a user's.
func upsert(user string, mechanism int8, iterations int32, salted int) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
	u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	u.Name, u.Mechanism, u.Iterations, u.Salt = user, mechanism, iterations, []byte("golden salt")
	u.SaltedPassword = []byte(strings.Repeat("s", salted))
	return u
}

func alterUsersQuestions() []question {
	type upsertion = kmsg.AlterUserSCRAMCredentialsRequestUpsertion
	type deletion = kmsg.AlterUserSCRAMCredentialsRequestDeletion
	ask := func(upsertions []upsertion, deletions ...deletion) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request {
			req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
			req.Upsertions, req.Deletions = upsertions, deletions
			return req
		}
	}
	one := func(user string, mechanism int8, iterations int32, salted int) []upsertion {
		return []upsertion{upsert(user, mechanism, iterations, salted)}
	}
	return []question{
		{"good", 0, ask(one("golden-user", 1, 4096, 32))},
		{"both mechanisms", 0, ask(append(one("golden-both", 1, 4096, 32), upsert("golden-both", 2, 8192, 64)))},
		{"a short salted password", 0, ask(one("golden-short", 2, 4096, 10))},
		{"no salted password", 0, ask(one("golden-empty", 1, 4096, 0))},
		{"too few iterations", 0, ask(one("golden-few", 1, 4095, 32))},
		{"too many iterations", 0, ask(one("golden-many", 1, 16385, 32))},
		{"no such mechanism", 0, ask(one("golden-none", 9, 4096, 32))},
		{"no user", 0, ask(one("", 1, 4096, 32))},
		{"the same twice", 0, ask(append(one("golden-twice", 1, 4096, 32), upsert("golden-twice", 1, 4096, 32)))},
		{"one good and one bad", 0, ask(append(one("golden-good", 1, 4096, 32), upsert("golden-bad", 1, 1, 32)))},
		{"delete what is not there", 0, ask(nil, deletion{Name: "golden-nobody", Mechanism: 1})},
		{"delete with another mechanism", 0, ask(nil, deletion{Name: "golden-user", Mechanism: 2})},
		{"delete with no such mechanism", 0, ask(nil, deletion{Name: "golden-user", Mechanism: 9})},
		{"delete", 0, ask(nil, deletion{Name: "golden-short", Mechanism: 2}, deletion{Name: "golden-good", Mechanism: 1})},
		{"delete and set", 0, ask(one("golden-user", 1, 4096, 32), deletion{Name: "golden-user", Mechanism: 1})},
		{"nothing", 0, ask(nil)},
	}
}

func describeUsersStory(s *script, v int16) error {
	ask := func(users ...string) *kmsg.DescribeUserSCRAMCredentialsRequest {
		req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, u := range users {
			req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: u})
		}
		return req
	}
	// golden-good was made and deleted, last of all.
	if err := s.silently(func() error {
		return s.until(v, ask("golden-user", "golden-good"), func(r kmsg.Response) bool {
			known := map[string]bool{}
			for _, u := range r.(*kmsg.DescribeUserSCRAMCredentialsResponse).Results {
				known[u.User] = u.ErrorCode == 0
			}
			return known["golden-user"] && !known["golden-good"]
		})
	}); err != nil {
		return err
	}
	none := ask()
	none.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{}
	for _, one := range []struct {
		label string
		req   *kmsg.DescribeUserSCRAMCredentialsRequest
	}{
		{"one", ask("golden-user")}, {"both mechanisms", ask("golden-both")}, {"unknown", ask("golden-nobody")},
		{"the same twice", ask("golden-user", "golden-user")}, {"known and unknown", ask("golden-user", "golden-nobody")},
		{"empty name", ask("")}, {"null", ask()}, {"nobody", none},
	} {
		if err := s.tell(one.label, v, one.req); err != nil {
			return err
		}
	}
	return nil
}

func handshake(mechanism string) *kmsg.SASLHandshakeRequest {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = mechanism
	return req
}

func authenticate(token []byte) *kmsg.SASLAuthenticateRequest {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.SASLAuthBytes = token
	return req
}
