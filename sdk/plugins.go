package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/broker/adminapi"
)

// chunkBytes is how much of a module one message of an upload carries.
const chunkBytes = 512 << 10

// PushPlugin uploads a module under the name and version of its manifest (plugin.yaml). The broker admits it first:
// it checks imports, exports and limits, meters it, and runs the manifest's cases. Pushing the same bytes under the same
// version again is no error and says so in Existed; other bytes under it are refused.
func (c *Client) PushPlugin(ctx context.Context, manifest, module []byte) (*adminapi.PushPluginResponse, error) {
	stream, err := c.Plugins().PushPlugin(ctx)
	if err != nil {
		return nil, fmt.Errorf("push plugin: %w", err)
	}
	send := func(request *adminapi.PushPluginRequest) error {
		err := stream.Send(request)
		if errors.Is(err, io.EOF) {
			return nil // The broker has answered already; CloseAndReceive tells what.
		}
		return err
	}
	err = send(&adminapi.PushPluginRequest{Part: &adminapi.PushPluginRequest_Manifest{Manifest: manifest}})
	for rest := module; err == nil && len(rest) > 0; {
		chunk := rest[:min(chunkBytes, len(rest))]
		rest = rest[len(chunk):]
		err = send(&adminapi.PushPluginRequest{Part: &adminapi.PushPluginRequest_Chunk{Chunk: chunk}})
	}
	response, closeErr := stream.CloseAndReceive()
	if err := errors.Join(err, closeErr); err != nil {
		return nil, fmt.Errorf("push plugin: %w", err)
	}
	return response, nil
}

// Bind binds a chain to a group on topics, and returns when the binding's first decision is committed for every
// partition. plugin is NAME or NAME@VERSION; config is the plugin's JSON, nil for none.
func (c *Client) Bind(ctx context.Context, group, plugin string, config []byte, topics ...string) ([]*adminapi.Binding, error) {
	response, err := c.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{
		Group:  group,
		Topics: topics,
		Chain:  &adminapi.ChainSpec{Stages: []*adminapi.Stage{{Plugin: plugin, Config: config}}},
	})
	if err != nil {
		return nil, fmt.Errorf("bind %s to group %s: %w", plugin, group, err)
	}
	return response.Bindings, nil
}

// CreateTopic makes a topic; partitions 0 asks for the cluster's default.
func (c *Client) CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) (*adminapi.Topic, error) {
	response, err := c.Topics().CreateTopic(ctx, &adminapi.CreateTopicRequest{Name: name, Partitions: partitions, Configs: configs})
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", name, err)
	}
	return response.Topic, nil
}

// CreateView makes a read-only topic that shows what group's chain delivers of a topic, to any Kafka client.
func (c *Client) CreateView(ctx context.Context, name, topic, group string) (*adminapi.View, error) {
	response, err := c.Views().CreateView(ctx, &adminapi.CreateViewRequest{Name: name, Topic: topic, Group: group})
	if err != nil {
		return nil, fmt.Errorf("create view %s: %w", name, err)
	}
	return response.View, nil
}
