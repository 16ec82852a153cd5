package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
)

// Bounds of an upload.
const (
	moduleBytesMax   = 8 << 20
	manifestBytesMax = 256 << 10
)

// PushPlugin implements PluginService.
func (s *Server) PushPlugin(ctx context.Context, stream *connect.ClientStream[adminapi.PushPluginRequest]) (*adminapi.PushPluginResponse, error) {
	manifestText, module, err := receiveModule(stream)
	if err != nil {
		return nil, err
	}
	manifest, err := plugins.ParseManifest(manifestText)
	if err != nil {
		return nil, broker.Errorf(broker.InvalidConfig, "%v", err)
	}
	given := sha256.Sum256(module)
	if old, ok := s.Metadata.Image().Plugin(manifest.Name, manifest.Version); ok {
		if old.Given != given {
			return nil, broker.Errorf(broker.DuplicateResource,
				"%s@%s was pushed before with other bytes (sha256 %x): a version never changes; raise the version in plugin.yaml",
				manifest.Name, manifest.Version, old.Given)
		}
		return &adminapi.PushPluginResponse{Version: pluginMessage(old, false), Existed: true}, nil
	}
	admitted, err := s.admit(ctx, manifest, manifestText, module)
	if err != nil {
		return nil, err
	}
	return &adminapi.PushPluginResponse{Version: pluginMessage(&admitted.Version, false), CasesPassed: int32(admitted.CasesPassed), FuelMaxRecord: admitted.FuelMaxRecord}, nil
}

func receiveModule(stream *connect.ClientStream[adminapi.PushPluginRequest]) (manifest, module []byte, err error) {
	for stream.Receive() {
		switch part := stream.Msg().Part.(type) {
		case *adminapi.PushPluginRequest_Manifest:
			manifest = part.Manifest
		case *adminapi.PushPluginRequest_Chunk:
			module = append(module, part.Chunk...)
		}
		if len(module) > moduleBytesMax || len(manifest) > manifestBytesMax {
			return nil, nil, broker.Errorf(broker.InvalidRequest, "a module may have %d bytes and a manifest %d", moduleBytesMax, manifestBytesMax)
		}
	}
	if err := stream.Err(); err != nil {
		return nil, nil, err
	}
	if len(manifest) == 0 || len(module) == 0 {
		return nil, nil, broker.Errorf(broker.InvalidRequest, "an upload has a manifest first and then the module in chunks; one of them is missing")
	}
	return manifest, module, nil
}

// admit admits a module, stores its bytes, and only then records the version, so that what is recorded can be run.
func (s *Server) admit(ctx context.Context, manifest *plugins.Manifest, manifestText, module []byte) (Admitted, error) {
	admitted, err := s.Plugins.Admit(ctx, manifest, manifestText, module)
	if err != nil {
		var coded *broker.Error
		if errors.As(err, &coded) {
			return Admitted{}, err
		}
		return Admitted{}, broker.Errorf(broker.InvalidConfig, "plugin %s@%s is refused: %v", manifest.Name, manifest.Version, err)
	}
	admitted.Version.CreatedMs = s.NowMs()
	if err := s.Plugins.Store(ctx, admitted, module); err != nil {
		return Admitted{}, fmt.Errorf("store plugin %s@%s: %w", manifest.Name, manifest.Version, err)
	}
	if _, err := submit[controller.PluginPut](ctx, s, controller.PutPlugin{Version: admitted.Version}); err != nil {
		return Admitted{}, err
	}
	return admitted, nil
}

func pluginMessage(v *metadata.PluginVersion, builtin bool) *adminapi.PluginVersion {
	message := &adminapi.PluginVersion{
		Name: v.Name, Version: v.Version, GivenSha256: hex.EncodeToString(v.Given[:]), MeteredSha256: hex.EncodeToString(v.Metered[:]),
		Abi: v.ABI, CostTable: v.CostTable, CreatedMs: v.CreatedMs, SizeBytes: v.GivenBytes, Builtin: builtin,
	}
	if manifest, err := plugins.ParseManifest(v.Manifest); err == nil {
		describeManifest(message, manifest)
	}
	return message
}

func describeManifest(message *adminapi.PluginVersion, manifest *plugins.Manifest) {
	message.Language, message.Verdicts = manifest.Language, manifest.Verdicts
	for _, part := range []struct {
		bit  plugins.Projection
		name string
	}{{plugins.ProjectKey, "key"}, {plugins.ProjectValue, "value"}, {plugins.ProjectHeaders, "headers"}} {
		if manifest.Projection&part.bit != 0 {
			message.Projection = append(message.Projection, part.name)
		}
	}
}

// ListPlugins implements PluginService: the newest version of each, built-ins included.
func (s *Server) ListPlugins(context.Context, *adminapi.ListPluginsRequest) (*adminapi.ListPluginsResponse, error) {
	response := &adminapi.ListPluginsResponse{}
	at := map[string]int{}
	for _, message := range s.allPlugins() {
		if i, seen := at[message.Name]; seen {
			response.Latest[i] = message
			continue
		}
		at[message.Name] = len(response.Latest)
		response.Latest = append(response.Latest, message)
	}
	return response, nil
}

// allPlugins lists built-ins and uploads, each name's versions in order of upload.
func (s *Server) allPlugins() []*adminapi.PluginVersion {
	image := s.Metadata.Image()
	var all []*adminapi.PluginVersion
	builtin := map[string]bool{}
	for _, b := range s.Plugins.Builtins() {
		builtin[b.Manifest.Name] = true
		if _, stored := image.Plugin(b.Manifest.Name, b.Manifest.Version); stored {
			continue
		}
		given := sha256.Sum256(b.Module)
		message := &adminapi.PluginVersion{
			Name: b.Manifest.Name, Version: b.Manifest.Version, GivenSha256: hex.EncodeToString(given[:]),
			Abi: uint32(b.Manifest.ABI), SizeBytes: int64(len(b.Module)), Builtin: true,
		}
		describeManifest(message, b.Manifest)
		all = append(all, message)
	}
	for _, v := range image.Plugins() {
		all = append(all, pluginMessage(v, builtin[v.Name]))
	}
	return all
}

// ListPluginVersions implements PluginService.
func (s *Server) ListPluginVersions(_ context.Context, r *adminapi.ListPluginVersionsRequest) (*adminapi.ListPluginVersionsResponse, error) {
	response := &adminapi.ListPluginVersionsResponse{}
	for _, message := range s.allPlugins() {
		if message.Name == r.Name {
			response.Versions = append(response.Versions, message)
		}
	}
	if len(response.Versions) == 0 {
		return nil, broker.Errorf(broker.ResourceNotFound, "there is no plugin %q; `raftctl plugin list` lists them", r.Name)
	}
	return response, nil
}
