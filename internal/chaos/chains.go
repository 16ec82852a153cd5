package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/sdk"
)

// pluginName is the folder plugin as it is pushed, in the versions 1.0.0 and 2.0.0.
const pluginName = "chaos-judge"

// bound is a binding that the run looks at, and the view through which it does.
type bound struct {
	name  string // the group, or the view where the view has a binding of its own
	view  string
	rack  string // how a plain Fetch names the group; empty for a view of its own
	chain func(version string) *adminapi.ChainSpec
}

// smallWindow is a reach of four blocks of 128 offsets, so that windows expire all the time.
func smallWindow(version string) *adminapi.ChainSpec {
	spec := &adminapi.ChainSpec{Window: &adminapi.Window{Blocks: 4}, BlockBits: 7}
	if version != "" {
		spec.Stages = []*adminapi.Stage{{Plugin: pluginName + "@" + version + ".0.0"}}
	}
	return spec
}

func dedupField(string) *adminapi.ChainSpec {
	return &adminapi.ChainSpec{
		Stages: []*adminapi.Stage{{Plugin: "dedup-json", Config: []byte(`{"field":"id"}`)}},
		Window: &adminapi.Window{Blocks: 2, WithinMs: 1500}, BlockBits: 6,
	}
}

// push compiles both versions of the plugin and uploads them.
func push(ctx context.Context, client *sdk.Client, dir string) error {
	for _, version := range []string{"1", "2"} {
		module := filepath.Join(dir, "judge"+version+".wasm")
		err := process.Build(ctx, module, "github.com/millrace-io/millrace/internal/chaos/plugin", []string{"GOOS=wasip1", "GOARCH=wasm"},
			"-buildmode=c-shared", "-ldflags=-s -w -X main.version="+version)
		if err != nil {
			return err
		}
		code, err := os.ReadFile(module)
		if err != nil {
			return err
		}
		manifest := fmt.Sprintf("name: %s\nversion: %s.0.0\nabi: 1\nlanguage: go\nprojection: [key, value]\nverdicts: [drop, replace, unique, dead-letter]\n", pluginName, version)
		if _, err := client.PushPlugin(ctx, []byte(manifest), code); err != nil {
			return err
		}
	}
	return nil
}

// decisions asks for a binding's rows and turns them into what the oracle reads, one a partition.
func decisions(ctx context.Context, client *sdk.Client, of bound) (*adminapi.Binding, []decided, error) {
	response, err := client.Debug().DumpDecisions(ctx, &adminapi.DumpDecisionsRequest{Group: of.name, Topic: topic})
	if err != nil {
		return nil, nil, fmt.Errorf("decisions of %s: %w", of.name, err)
	}
	all := make([]decided, partitions)
	for partition := range all {
		all[partition].origin = -1
		for _, origin := range response.Origins {
			if int(origin.Partition) == partition {
				all[partition].origin = origin.Offset
			}
		}
		for _, r := range response.Binding.Rows {
			from, ok := fromOf(r, partition)
			if !ok {
				break // not decided here yet, and so nothing behind it
			}
			model, err := modelOf(r)
			if err != nil {
				return nil, nil, err
			}
			all[partition].rows = append(all[partition].rows, decision{
				row: r.Id, from: from, judge: model, bits: uint8(r.BlockBits), blocks: int64(r.Window.Blocks), within: r.Window.WithinMs,
			})
		}
	}
	return response.Binding, all, nil
}

func fromOf(r *adminapi.Row, partition int) (int64, bool) {
	for _, cut := range r.From {
		if int(cut.Partition) == partition {
			return cut.From, true
		}
	}
	return 0, false
}

// modelOf finds the native model of a row's stages.
func modelOf(r *adminapi.Row) (judge, error) {
	if len(r.Stages) == 0 {
		return nil, nil
	}
	plugin, version, _ := strings.Cut(r.Stages[0].Plugin, "@")
	switch {
	case len(r.Stages) > 1:
	case plugin == pluginName:
		return judgeVersion(version[:1]), nil
	case plugin == "dedup-json":
		return judgeField, nil
	case plugin == "dedup-key":
		return judgeKey, nil
	}
	return nil, fmt.Errorf("row %d has stages that the oracle has no model of: %v", r.Id, r.Stages)
}

// cutovers moves the bindings between versions while records are produced, and makes and deletes topics. What it asks for
// may or may not happen when the broker is killed; the decision rows say which.
type cutovers struct {
	client *sdk.Client
	random *rand.Rand
	bounds []bound
	asked  atomic.Int64
	done   atomic.Int64
	topics atomic.Int64
}

// run asks for something every now and then until ctx ends.
func (c *cutovers) run(ctx context.Context) error {
	version, at := "1", time.Duration(0)
	for ctx.Err() == nil {
		at = time.Duration(150+c.random.IntN(1200)) * time.Millisecond
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(at):
		}
		switch choice := c.random.IntN(20); {
		case choice < 6:
			c.noise(ctx)
		case choice < 7:
			c.cut(ctx, c.bounds[c.random.IntN(len(c.bounds))], "")
		case choice < 10:
			c.cut(ctx, c.bounds[c.random.IntN(len(c.bounds))], version)
		default:
			version = map[string]string{"1": "2", "2": "1"}[version]
			for _, b := range c.bounds {
				c.cut(ctx, b, version)
			}
		}
	}
	return nil
}

func (c *cutovers) cut(ctx context.Context, b bound, version string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.asked.Add(1)
	if _, err := c.client.Bindings().UpdateBinding(ctx, &adminapi.UpdateBindingRequest{Group: b.name, Topic: topic, Chain: b.chain(version)}); err == nil {
		c.done.Add(1)
	}
}

// noise makes a topic and deletes it.
func (c *cutovers) noise(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	name := fmt.Sprintf("noise-%d", c.random.IntN(1000))
	if _, err := c.client.CreateTopic(ctx, name, 1, nil); err != nil {
		return
	}
	if _, err := c.client.Topics().DeleteTopic(ctx, &adminapi.DeleteTopicRequest{Name: name}); err == nil {
		c.topics.Add(1)
	}
}
