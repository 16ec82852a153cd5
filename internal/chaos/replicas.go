package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/raftctl/inspect"
)

// compareReplicas stops the nodes as an operator would, and compares what lies on their disks: every partition has the same
// batches everywhere, byte for byte (5), up to the same end.
func (t *trial) compareReplicas() error {
	if err := t.cluster.stop(syscall.SIGTERM); err != nil {
		t.complain(fmt.Sprintf("stop: %v", err))
	}
	found, err := filepath.Glob(filepath.Join(t.nodes[0].Data(), "topics", "*", "*"))
	if err != nil {
		return err
	}
	for _, path := range found {
		if t.compacted(path) {
			continue
		}
		partition, err := filepath.Rel(t.nodes[0].Data(), path)
		if err != nil {
			return err
		}
		if err := t.comparePartition(partition); err != nil {
			return err
		}
	}
	if t.result.Compared == 0 {
		return errors.New("no batch lies on the disks")
	}
	return nil
}

// compacted reports whether any replica was: each compacts by itself.
func (t *trial) compacted(path string) bool {
	for _, n := range t.nodes {
		partition, err := filepath.Rel(t.nodes[0].Data(), path)
		if err != nil {
			return false
		}
		if _, err := os.Stat(filepath.Join(n.Data(), partition, "cleaned")); err == nil {
			return true
		}
	}
	return false
}

func (t *trial) comparePartition(partition string) error {
	var logs [clusterSize][]batch.View
	for i, n := range t.nodes {
		var err error
		if logs[i], err = t.batches(n, partition); err != nil {
			return err
		}
	}
	t.result.Compared += len(logs[0])
	t.complain(unlike(partition, logs)...)
	return nil
}

// unlike says where the logs of a partition differ first.
func unlike(partition string, logs [clusterSize][]batch.View) (wrong []string) {
	first := logs[0]
	for i, other := range logs[1:] {
		if len(other) != len(first) {
			wrong = append(wrong, fmt.Sprintf("%s: %d batches on node 1 and %d on node %d", partition, len(first), len(other), i+2))
		}
		for k := range min(len(first), len(other)) {
			if a, b := first[k], other[k]; !bytes.Equal(a, b) {
				wrong = append(wrong, fmt.Sprintf("%s: batch %d is %s on node 1 and %s on node %d", partition, k, show(a), show(b), i+2))
				break
			}
		}
	}
	return wrong
}

// batches reads a partition's directory of a node that does not run.
func (t *trial) batches(n *node, partition string) (all []batch.View, err error) {
	disk := os.DirFS(n.Data())
	segments, err := inspect.Segments(disk, filepath.ToSlash(partition))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // nothing was ever written, or the node has no such replica
	}
	if err != nil {
		return nil, err
	}
	for b, err := range inspect.Batches(disk, segments) {
		if err != nil {
			t.complain(fmt.Sprintf("node %d %s: %v", n.id, partition, err))
			return all, nil
		}
		for _, problem := range b.Problems {
			t.complain(fmt.Sprintf("node %d %s at %d: %s", n.id, partition, b.View.BaseOffset(), problem))
		}
		all = append(all, bytes.Clone(b.View))
	}
	return all, nil
}

func show(v batch.View) string {
	return fmt.Sprintf("[%d,%d) of leader epoch %d, producer %d from %d, CRC %08x", v.BaseOffset(), v.NextOffset(), v.LeaderEpoch(), v.ProducerID(), v.BaseSequence(), v.CRC())
}
