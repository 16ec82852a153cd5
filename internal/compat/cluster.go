package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/sdk"
)

// grow has more nodes join the broker's cluster until there are so many, all of them voters.
func (b *brokerProcess) grow(ctx context.Context, nodes int) error {
	if nodes <= 1 {
		return nil
	}
	admin, err := sdk.New(sdk.WithAdmin(b.admin))
	if err != nil {
		return err
	}
	for id := 2; id <= nodes && err == nil; id++ {
		err = b.join(ctx, admin, id)
	}
	if err == nil {
		err = promote(ctx, admin)
	}
	if err == nil {
		err = b.spread(ctx, nodes)
	}
	return errors.Join(err, admin.Close())
}

// join starts one more node, in a directory beside the broker's.
func (b *brokerProcess) join(ctx context.Context, admin *sdk.Client, id int) error {
	invitation, err := admin.Cluster().InviteNode(ctx, &adminapi.InviteNodeRequest{Node: int32(id)})
	if err != nil {
		return fmt.Errorf("invite node %d: %w", id, err)
	}
	dir := filepath.Join(b.process.Dir, "node-"+strconv.Itoa(id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	member := process.Broker{Dir: dir}
	out, err := exec.CommandContext(ctx, b.process.Program, "join", "--data", member.Data(), "--node-id", strconv.Itoa(id),
		"--cluster", invitation.Address, "--token", invitation.Token).CombinedOutput()
	if err != nil {
		return fmt.Errorf("node %d: millrace join: %w\n%s", id, err, out)
	}
	node, err := process.Format(ctx, b.process.Program, dir, "", quickGroups, "cluster.seeds: "+invitation.Address)
	if err != nil {
		return err
	}
	if err := node.Serve(ctx); err != nil {
		return errors.Join(err, node.End(syscall.SIGKILL))
	}
	b.others = append(b.others, node)
	return nil
}

// promote makes voters of all nodes, in one step, as soon as all can be.
func promote(ctx context.Context, admin *sdk.Client) (err error) {
	request := &adminapi.AlterMembersRequest{}
	quorum, err := admin.Cluster().GetQuorum(ctx, &adminapi.GetQuorumRequest{})
	if err != nil {
		return err
	}
	for _, m := range quorum.Members {
		if !m.Voter {
			request.Promote = append(request.Promote, m.RaftId)
		}
	}
	if !eventually(ctx, patience, func() bool {
		_, err = admin.Cluster().AlterMembers(ctx, request)
		return err == nil
	}) {
		return fmt.Errorf("promote: %w", err)
	}
	return nil
}

// spread returns when the offsets of groups lie on every node: what follows is to run with all replicas.
func (b *brokerProcess) spread(ctx context.Context, nodes int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.client))
	if err != nil {
		return err
	}
	defer client.Close()
	const offsets = "__consumer_offsets"
	var told kadm.TopicDetails
	if eventually(ctx, patience, func() bool {
		told, err = kadm.NewClient(client).ListTopicsWithInternal(ctx, offsets)
		return err == nil && told.Has(offsets) && full(told[offsets], nodes)
	}) {
		return nil
	}
	return fmt.Errorf("%s is not on all nodes after %v: %w", offsets, patience, errors.Join(err, told.Error()))
}

// full reports whether every partition has so many replicas, all of them in sync.
func full(topic kadm.TopicDetail, replicas int) bool {
	for _, p := range topic.Partitions {
		if len(p.Replicas) < replicas || len(p.ISR) < replicas {
			return false
		}
	}
	return len(topic.Partitions) > 0
}
