package raftctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Access rules are changed by Kafka's own requests, so that the commands work on any Kafka cluster.

func (c *cli) aclCommand() *cobra.Command {
	return parent("acl", "Access rules: who may do what", c.aclCreate(), c.aclList(), c.aclDelete())
}

// accessRule is an access rule as commands print it.
type accessRule struct {
	Principal  string `json:"principal"`
	Permission string `json:"permission"`
	Operation  string `json:"operation"`
	Resource   string `json:"resource"`
	Pattern    string `json:"pattern"`
	Name       string `json:"name"`
	Host       string `json:"host"`
}

func rulesTable(rules []accessRule) *table {
	t := &table{columns: []string{"principal", "permission", "operation", "resource", "name", "pattern", "host"}}
	for _, r := range rules {
		t.add(r.Principal, r.Permission, r.Operation, r.Resource, r.Name, r.Pattern, r.Host)
	}
	return t
}

// aclFlags say which rules are meant. What is left out stands for anything, where anything is allowed.
type aclFlags struct {
	allow, deny []string
	operations  []string
	topics      []string
	groups      []string
	ids         []string
	users       []string
	cluster     bool
	prefix      bool
	host        string
}

func (f *aclFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.allow, "allow", nil, "users who may, NAME or * for all")
	flags.StringSliceVar(&f.deny, "deny", nil, "users who may not, whatever else allows it")
	flags.StringSliceVar(&f.operations, "operation", nil, "read, write, create, delete, alter, describe, cluster-action, describe-configs, alter-configs, idempotent-write or all")
	flags.StringSliceVar(&f.topics, "topic", nil, "topics or views, NAME or *")
	flags.StringSliceVar(&f.groups, "group", nil, "consumer groups, NAME or *")
	flags.StringSliceVar(&f.ids, "transactional-id", nil, "transactional ids, NAME or *")
	flags.StringSliceVar(&f.users, "for-user", nil, "users as resources, NAME or *")
	flags.BoolVar(&f.cluster, "cluster", false, "the cluster itself")
	flags.BoolVar(&f.prefix, "prefix", false, "the names are prefixes")
	flags.StringVar(&f.host, "host", "", "address that the client comes from (create: default *)")
}

// principal makes a Kafka principal of a user's name.
func principal(name string) string {
	if strings.HasPrefix(name, "User:") {
		return name
	}
	return "User:" + name
}

// aclResource is a resource as flags name it.
type aclResource struct {
	kind kmsg.ACLResourceType
	name string
}

func (f *aclFlags) resources() []aclResource {
	var all []aclResource
	for _, r := range []struct {
		kind  kmsg.ACLResourceType
		names []string
	}{
		{kmsg.ACLResourceTypeTopic, f.topics}, {kmsg.ACLResourceTypeGroup, f.groups},
		{kmsg.ACLResourceTypeTransactionalId, f.ids}, {kmsg.ACLResourceTypeUser, f.users},
	} {
		for _, name := range r.names {
			all = append(all, aclResource{r.kind, name})
		}
	}
	if f.cluster {
		all = append(all, aclResource{kmsg.ACLResourceTypeCluster, "kafka-cluster"})
	}
	return all
}

func (f *aclFlags) pattern() kmsg.ACLResourcePatternType {
	if f.prefix {
		return kmsg.ACLResourcePatternTypePrefixed
	}
	return kmsg.ACLResourcePatternTypeLiteral
}

func (f *aclFlags) parsedOperations() ([]kmsg.ACLOperation, error) {
	var all []kmsg.ACLOperation
	for _, name := range f.operations {
		operation, err := kmsg.ParseACLOperation(name)
		if err != nil || operation <= kmsg.ACLOperationAny {
			return nil, usageError("operation %q is not known: read, write, create, delete, alter, describe, cluster-action, "+
				"describe-configs, alter-configs, idempotent-write or all", name)
		}
		all = append(all, operation)
	}
	return all, nil
}

// creations are the rules that the flags ask to make: every user with every operation on every resource.
func (f *aclFlags) creations() ([]kmsg.CreateACLsRequestCreation, error) {
	operations, err := f.parsedOperations()
	if err != nil {
		return nil, err
	}
	resources := f.resources()
	switch {
	case len(f.allow)+len(f.deny) == 0:
		return nil, usageError("acl create: say who with --allow or --deny")
	case len(operations) == 0:
		return nil, usageError("acl create: say what with --operation")
	case len(resources) == 0:
		return nil, usageError("acl create: say to what with --topic, --group, --transactional-id, --for-user or --cluster")
	case f.prefix && f.cluster:
		return nil, usageError("acl create: the cluster has one name, and no prefix of it")
	}
	var all []kmsg.CreateACLsRequestCreation
	for _, who := range []struct {
		users      []string
		permission kmsg.ACLPermissionType
	}{{f.allow, kmsg.ACLPermissionTypeAllow}, {f.deny, kmsg.ACLPermissionTypeDeny}} {
		for _, user := range who.users {
			for _, operation := range operations {
				for _, resource := range resources {
					creation := kmsg.NewCreateACLsRequestCreation()
					creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = resource.kind, resource.name, f.pattern()
					creation.Principal, creation.Host = principal(user), orElse(f.host, "*")
					creation.Operation, creation.PermissionType = operation, who.permission
					all = append(all, creation)
				}
			}
		}
	}
	return all, nil
}

func (c *cli) aclCreate() *cobra.Command {
	var f aclFlags
	cmd := &cobra.Command{
		Use:   "create --allow|--deny USER,... --operation OPERATION,... --topic|--group NAME,...|--cluster [--prefix] [--host ADDRESS]",
		Short: "Make access rules: every user, every operation, every resource named",
		Args:  exactly(),
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req := kmsg.NewPtrCreateACLsRequest()
		var err error
		if req.Creations, err = f.creations(); err != nil {
			return err
		}
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			resp, err := req.RequestWith(ctx, client)
			if err != nil {
				return err
			}
			var made []accessRule
			for i, result := range resp.Results {
				n := req.Creations[i]
				if err := kafkaError(result.ErrorCode, result.ErrorMessage); err != nil {
					return fmt.Errorf("access rule for %s on %s: %w", n.Principal, n.ResourceName, err)
				}
				made = append(made, ruleText(n.ResourceType, n.ResourcePatternType, n.ResourceName, n.Principal, n.Host, n.Operation, n.PermissionType))
			}
			return c.showValue(map[string]any{"created": made}, rulesTable(made))
		})
	}
	return cmd
}

func ruleText(kind kmsg.ACLResourceType, pattern kmsg.ACLResourcePatternType, name, principal, host string,
	operation kmsg.ACLOperation, permission kmsg.ACLPermissionType) accessRule {
	text := func(s fmt.Stringer) string { return strings.ReplaceAll(strings.ToLower(s.String()), "_", "-") }
	return accessRule{
		Principal: principal, Permission: text(permission), Operation: text(operation), Resource: text(kind), Pattern: text(pattern),
		Name: name, Host: host,
	}
}

// filters are the rules that the flags speak of; nothing named means all.
func (f *aclFlags) filters() ([]kmsg.DeleteACLsRequestFilter, error) {
	operations, err := f.parsedOperations()
	if err != nil {
		return nil, err
	}
	if len(operations) == 0 {
		operations = []kmsg.ACLOperation{kmsg.ACLOperationAny}
	}
	resources := f.resources()
	if len(resources) == 0 {
		resources = []aclResource{{kind: kmsg.ACLResourceTypeAny}}
	}
	type party struct {
		principal  *string
		permission kmsg.ACLPermissionType
	}
	var parties []party
	for _, user := range f.allow {
		parties = append(parties, party{kmsg.StringPtr(principal(user)), kmsg.ACLPermissionTypeAllow})
	}
	for _, user := range f.deny {
		parties = append(parties, party{kmsg.StringPtr(principal(user)), kmsg.ACLPermissionTypeDeny})
	}
	if len(parties) == 0 {
		parties = []party{{nil, kmsg.ACLPermissionTypeAny}}
	}
	var all []kmsg.DeleteACLsRequestFilter
	for _, p := range parties {
		for _, operation := range operations {
			for _, resource := range resources {
				filter := kmsg.NewDeleteACLsRequestFilter()
				filter.ResourceType, filter.ResourcePatternType = resource.kind, kmsg.ACLResourcePatternTypeAny
				if resource.name != "" {
					filter.ResourceName, filter.ResourcePatternType = kmsg.StringPtr(resource.name), f.pattern()
				}
				if f.host != "" {
					filter.Host = kmsg.StringPtr(f.host)
				}
				filter.Principal, filter.Operation, filter.PermissionType = p.principal, operation, p.permission
				all = append(all, filter)
			}
		}
	}
	return all, nil
}

// describeRules returns the rules that pass any of the filters, each once.
func describeRules(ctx context.Context, client *kgo.Client, filters []kmsg.DeleteACLsRequestFilter) ([]accessRule, error) {
	rules := []accessRule{}
	seen := map[accessRule]bool{}
	for _, f := range filters {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourceName, req.ResourcePatternType = f.ResourceType, f.ResourceName, f.ResourcePatternType
		req.Principal, req.Host, req.Operation, req.PermissionType = f.Principal, f.Host, f.Operation, f.PermissionType
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return nil, err
		}
		if err := kafkaError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return nil, err
		}
		for _, r := range resp.Resources {
			for _, a := range r.ACLs {
				rule := ruleText(r.ResourceType, r.ResourcePatternType, r.ResourceName, a.Principal, a.Host, a.Operation, a.PermissionType)
				if !seen[rule] {
					seen[rule] = true
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}

func (c *cli) aclList() *cobra.Command {
	var f aclFlags
	cmd := &cobra.Command{Use: "list [--allow USER] [--topic NAME] ...", Short: "List access rules, all or those that the flags describe", Args: exactly()}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filters, err := f.filters()
		if err != nil {
			return err
		}
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			rules, err := describeRules(ctx, client, filters)
			if err != nil {
				return err
			}
			return c.showValue(map[string]any{"rules": rules}, rulesTable(rules))
		})
	}
	return cmd
}

func (c *cli) aclDelete() *cobra.Command {
	var f aclFlags
	var yes bool
	cmd := &cobra.Command{Use: "delete [--allow USER] [--topic NAME] ... --yes", Short: "Delete the access rules that the flags describe", Args: exactly()}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filters, err := f.filters()
		if err != nil {
			return err
		}
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			rules, err := describeRules(ctx, client, filters)
			if err != nil {
				return err
			}
			switch {
			case len(rules) == 0:
				return notFound("no access rule is like that; `raftctl acl list` shows them")
			case !yes:
				return refused("this would delete %s; `raftctl acl list` with the same flags shows them: repeat with --yes", plural(len(rules), "access rule"))
			}
			req := kmsg.NewPtrDeleteACLsRequest()
			req.Filters = filters
			resp, err := req.RequestWith(ctx, client)
			if err != nil {
				return err
			}
			for _, result := range resp.Results {
				if err := kafkaError(result.ErrorCode, result.ErrorMessage); err != nil {
					return err
				}
			}
			return c.showValue(map[string]any{"deleted": rules}, rulesTable(rules))
		})
	}
	return cmd
}
