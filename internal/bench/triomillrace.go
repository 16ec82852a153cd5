package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

// millraceTrio is three of this tree's own brokers, all of them voters.
type millraceTrio struct {
	trio
	keys     []string // further `--key value` arguments of `millrace run`
	version  string
	clusters [trioNodes]string // addresses
	admins   [trioNodes]string
}

// Version implements system.
func (m *millraceTrio) Version() string {
	return strings.Join(append([]string{m.version + ", three brokers"}, m.keys...), " ")
}

// Driver implements system.
func (m *millraceTrio) Driver() driver  { return m.driver() }
func (m *millraceTrio) program() string { return m.home.bin("millrace") }

// Install implements system.
func (m *millraceTrio) Install(ctx context.Context) error {
	one := newMillrace(m.home, nil)
	err := one.Install(ctx)
	m.version = one.version
	return err
}

// Start implements system: the first node founds the cluster, two join it, and all vote.
func (m *millraceTrio) Start(ctx context.Context) (execAt time.Time, err error) {
	if err := m.clean(); err != nil {
		return time.Time{}, err
	}
	for i := range m.clients {
		if err := m.place(i, &m.clients[i], &m.clusters[i], &m.admins[i]); err != nil {
			return time.Time{}, err
		}
	}
	if err := m.command(ctx, "init", "--data", m.data(0), "--host", m.host(0)); err != nil {
		return time.Time{}, err
	}
	for i := range m.daemons {
		if i > 0 {
			err = m.join(ctx, i)
		}
		if err == nil {
			execAt, err = m.StartNode(ctx, i+1)
		}
		if err == nil {
			err = m.daemons[i].serving(ctx, m.clients[i])
		}
		if err != nil {
			return execAt, err
		}
	}
	if err := m.promote(ctx); err != nil {
		return execAt, err
	}
	return execAt, m.driver().brokers(ctx, trioNodes)
}

func (m *millraceTrio) command(ctx context.Context, arguments ...string) error {
	if out, err := exec.CommandContext(ctx, m.program(), arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("millrace %s: %w\n%s", arguments[0], err, out)
	}
	return nil
}

// StartNode implements clustered.
func (m *millraceTrio) StartNode(ctx context.Context, node int) (time.Time, error) {
	i := node - 1
	seeds := slices.Delete(slices.Clone(m.clusters[:]), i, i+1)
	// Admin listeners have no password here; beyond the loopback that must be said.
	return m.start(ctx, i, m.program(), append([]string{"run", "--data", m.data(i), "--node-id", strconv.Itoa(node),
		"--listeners-client-bind", m.clients[i], "--listeners-cluster-bind", m.clusters[i], "--listeners-admin-bind", m.admins[i],
		"--insecure-admin", "true", "--cluster-seeds", strings.Join(seeds, ","), "--log-level", "warn"}, m.keys...)...)
}

// host is where a node's listeners are.
func (m *millraceTrio) host(i int) string {
	return netip.MustParseAddrPort(m.clusters[i]).Addr().String()
}

// join has a node join with a token of the first.
func (m *millraceTrio) join(ctx context.Context, i int) error {
	node := int32(i + 1)
	var invited *adminapi.InviteNodeResponse
	err := m.ask(ctx, 0, func(ctx context.Context, client *sdk.Client) (err error) {
		invited, err = client.Cluster().InviteNode(ctx, &adminapi.InviteNodeRequest{Node: node})
		return err
	})
	if err != nil {
		return fmt.Errorf("let node %d join: %w", node, err)
	}
	return m.command(ctx, "join", "--data", m.data(i), "--node-id", strconv.Itoa(int(node)), "--cluster", invited.Address, "--token", invited.Token,
		"--host", m.host(i))
}

// promote makes voters of all nodes in one step, as soon as they are level.
func (m *millraceTrio) promote(ctx context.Context) error {
	return m.ask(ctx, 0, func(ctx context.Context, client *sdk.Client) error {
		q, err := client.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
		if err != nil {
			return err
		}
		request := &adminapi.AlterMembersRequest{}
		for _, member := range q.Members {
			if !member.Voter {
				request.Promote = append(request.Promote, member.RaftId)
			}
		}
		_, err = client.Cluster().AlterMembers(ctx, request) // refused as unavailable while they are not level
		return err
	})
}

// ask asks a node's admin listener, again while it is not there yet.
func (m *millraceTrio) ask(ctx context.Context, i int, f func(context.Context, *sdk.Client) error) error {
	client, err := sdk.New(sdk.WithAdmin(m.admins[i]))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	for {
		err = f(ctx, client)
		if err == nil || connect.CodeOf(err) != connect.CodeUnavailable || ctx.Err() != nil {
			return errors.Join(err, client.Close())
		}
		wait(ctx, wholeLook)
	}
}

// controller is the node that leads the metadata quorum.
func (m *millraceTrio) controller(ctx context.Context) (int, error) {
	leader := 0
	for ctx.Err() == nil && leader <= 0 {
		err := m.ask(ctx, 0, func(ctx context.Context, client *sdk.Client) error {
			q, err := client.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
			if err == nil {
				leader = int(q.LeaderNode)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		wait(ctx, wholeLook)
	}
	return leader, ctx.Err()
}

// Strike implements clustered.
func (m *millraceTrio) Strike(ctx context.Context, s strike) (struck, error) {
	return m.driver().strike(ctx, s, m.controller, m.hit)
}

// Whole implements clustered.
func (m *millraceTrio) Whole(ctx context.Context, topic string) error {
	return m.driver().whole(ctx, topic)
}

// ProfileURLs implements profiled.
func (m *millraceTrio) ProfileURLs(kind string, seconds int) map[string]string {
	urls := map[string]string{}
	for i, admin := range m.admins {
		if m.daemons[i].process == nil {
			continue
		}
		urls[strconv.Itoa(i+1)] = profileURL(admin, kind, seconds)
	}
	return urls
}
