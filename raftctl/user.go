package raftctl

import (
	"bufio"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Users are changed by Kafka's own requests, so that the commands work on any Kafka cluster. The password never leaves
// this process: what is sent is what SCRAM makes of it.

func (c *cli) userCommand() *cobra.Command {
	return parent("user", "Users with passwords (SCRAM)", c.userCreate(), c.userList(), c.userDelete(), c.userPasswd())
}

// scramMechanism is one way of keeping a password.
type scramMechanism struct {
	name   string
	number int8
	hash   func() hash.Hash
	bytes  int
}

// scramMechanisms are all of them; a user gets each, so that any client can authenticate.
var scramMechanisms = []scramMechanism{
	{"SCRAM-SHA-256", 1, sha256.New, sha256.Size},
	{"SCRAM-SHA-512", 2, sha512.New, sha512.Size},
}

const (
	iterationsDefault = 8192
	saltBytes         = 20
)

// passwordFlags are how a new password is told.
type passwordFlags struct {
	generate   bool
	iterations int32
}

func (p *passwordFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.generate, "generate", false, "draw a password and print it, instead of reading one from standard input")
	cmd.Flags().Int32Var(&p.iterations, "iterations", iterationsDefault, "how often the password is hashed, 4096 to 16384")
}

func (c *cli) userCreate() *cobra.Command {
	var p passwordFlags
	cmd := &cobra.Command{
		Use: "create NAME [--generate]", Short: "Make a user; the password is the first line of standard input", Args: exactly("NAME"),
	}
	p.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			known, err := describeUsers(ctx, client, args[0])
			if err != nil {
				return err
			}
			if len(known) > 0 {
				return refused("user %s exists; `raftctl user passwd %s` gives another password", args[0], args[0])
			}
			return c.setPassword(ctx, client, args[0], p)
		})
	}
	return cmd
}

func (c *cli) userPasswd() *cobra.Command {
	var p passwordFlags
	cmd := &cobra.Command{
		Use: "passwd NAME [--generate]", Short: "Give a user another password; the user's sessions end within a second", Args: exactly("NAME"),
	}
	p.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			known, err := describeUsers(ctx, client, args[0])
			if err != nil {
				return err
			}
			if len(known) == 0 {
				return noSuchUser(args[0])
			}
			return c.setPassword(ctx, client, args[0], p)
		})
	}
	return cmd
}

func noSuchUser(name string) error {
	return notFound("there is no user %s; `raftctl user list` names them", name)
}

// setPassword stores a password under every mechanism.
func (c *cli) setPassword(ctx context.Context, client *kgo.Client, user string, p passwordFlags) error {
	password := rand.Text()
	if !p.generate {
		line, err := bufio.NewReader(c.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the password: %w", err)
		}
		if password = firstLine(line); password == "" {
			return usageError("the password is the first line of standard input, and that is empty; --generate draws one")
		}
	}
	for _, m := range scramMechanisms { // one by one: not every broker takes a user twice in a request
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations, u.Salt = user, m.number, p.iterations, make([]byte, saltBytes)
		rand.Read(u.Salt)
		var err error
		if u.SaltedPassword, err = pbkdf2.Key(m.hash, password, u.Salt, int(p.iterations), m.bytes); err != nil {
			return fmt.Errorf("hash the password: %w", err)
		}
		req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		req.Upsertions = append(req.Upsertions, u)
		if err := alterUser(ctx, client, req); err != nil {
			return fmt.Errorf("user %s: %w", user, err)
		}
	}
	result := map[string]any{"user": user, "mechanisms": mechanismNames(), "iterations": p.iterations}
	t := &table{columns: []string{"user", "mechanisms", "iterations"}, rows: [][]any{{user, mechanismNames(), p.iterations}}}
	if p.generate {
		result["password"] = password
		t.columns, t.rows[0] = append(t.columns, "password"), append(t.rows[0], password)
	}
	return c.showValue(result, t)
}

func mechanismNames() []string {
	var names []string
	for _, m := range scramMechanisms {
		names = append(names, m.name)
	}
	return names
}

func alterUser(ctx context.Context, client *kgo.Client, req *kmsg.AlterUserSCRAMCredentialsRequest) error {
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, r := range resp.Results {
		if err := kafkaError(r.ErrorCode, r.ErrorMessage); err != nil {
			return err
		}
	}
	return nil
}

// kafkaError is the error behind a code, with the broker's own sentence.
func kafkaError(code int16, message *string) error {
	err := kerr.ErrorForCode(code)
	if err != nil && message != nil {
		return fmt.Errorf("%w: %s", err, *message)
	}
	return err
}

// jsonUser is a user as commands print it.
type jsonUser struct {
	User       string   `json:"user"`
	Mechanisms []string `json:"mechanisms"`
	Iterations int32    `json:"iterations"` // the least of them
}

// describeUsers returns users by name: those named, as far as they exist, or all.
func describeUsers(ctx context.Context, client *kgo.Client, names ...string) ([]jsonUser, error) {
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	for _, name := range names {
		u := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
		u.Name = name
		req.Users = append(req.Users, u)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := kafkaError(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	users := []jsonUser{}
	for _, r := range resp.Results {
		err := kafkaError(r.ErrorCode, r.ErrorMessage)
		if errors.Is(err, kerr.ResourceNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		user := jsonUser{User: r.User, Mechanisms: []string{}}
		for _, info := range r.CredentialInfos {
			name := fmt.Sprint(info.Mechanism)
			for _, m := range scramMechanisms {
				if m.number == info.Mechanism {
					name = m.name
				}
			}
			user.Mechanisms = append(user.Mechanisms, name)
			if user.Iterations == 0 || info.Iterations < user.Iterations {
				user.Iterations = info.Iterations
			}
		}
		users = append(users, user)
	}
	return users, nil
}

func (c *cli) userList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List users", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			users, err := describeUsers(ctx, client)
			if err != nil {
				return err
			}
			t := &table{columns: []string{"user", "mechanisms", "iterations"}}
			for _, u := range users {
				t.add(u.User, u.Mechanisms, u.Iterations)
			}
			return c.showValue(map[string]any{"users": users}, t)
		})
	}}
}

func (c *cli) userDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME --yes", Short: "Delete a user; the user's sessions end within a second", Args: exactly("NAME")}
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.kafka(cmd.Context(), func(ctx context.Context, client *kgo.Client) error {
			users, err := describeUsers(ctx, client, args[0])
			if err != nil {
				return err
			}
			if len(users) == 0 {
				return noSuchUser(args[0])
			}
			if !yes {
				return refused("this would delete user %s and end the user's sessions; access rules that name the user stay: repeat with --yes", args[0])
			}
			for _, m := range scramMechanisms {
				if !strings.Contains(strings.Join(users[0].Mechanisms, " "), m.name) {
					continue
				}
				d := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
				d.Name, d.Mechanism = args[0], m.number
				req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
				req.Deletions = append(req.Deletions, d)
				if err := alterUser(ctx, client, req); err != nil {
					return fmt.Errorf("user %s: %w", args[0], err)
				}
			}
			return c.showValue(map[string]string{"deleted": args[0]}, &table{columns: []string{"deleted"}, rows: [][]any{{args[0]}}})
		})
	}
	return cmd
}

// kafka runs requests to the brokers within the time limit.
func (c *cli) kafka(ctx context.Context, f func(ctx context.Context, client *kgo.Client) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err = c.checkTopics(ctx, client.Kafka())
	if err == nil {
		err = f(ctx, client.Kafka())
	}
	return errors.Join(err, client.Close())
}
