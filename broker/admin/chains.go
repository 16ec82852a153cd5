package admin

import (
	"context"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
)

// defaultReachBlocks is the reach of a window nobody sized: 15 whole blocks behind the current one.
const defaultReachBlocks = 15

// row turns a chain as the API has it into a decision row, and refuses what could not be judged.
func (s *Server) row(ctx context.Context, spec *adminapi.ChainSpec) (metadata.Row, error) {
	if spec == nil {
		spec = &adminapi.ChainSpec{}
	}
	row := metadata.Row{Policy: metadata.PolicyDeadLetter, WindowBlocks: defaultReachBlocks, WithinMs: spec.Window.GetWithinMs()}
	if spec.Policy != adminapi.ErrorPolicy_ERROR_POLICY_UNSPECIFIED {
		row.Policy = metadata.ErrorPolicy(spec.Policy)
	}
	if b := spec.Breaker; b != nil {
		row.Breaker = metadata.Breaker{Failures: b.Failures, Offsets: b.Offsets}
	}
	if blocks := spec.Window.GetBlocks(); blocks > 0 {
		row.WindowBlocks = blocks
	}
	limits := plugins.DefaultLimits()
	var unique, redacts string
	for _, stage := range spec.Stages {
		version, manifest, err := s.stagePlugin(ctx, stage.Plugin)
		if err != nil {
			return row, err
		}
		config, err := configOf(manifest, stage)
		if err != nil {
			return row, broker.Errorf(broker.InvalidConfig, "configuration of %s: %v", stage.Plugin, err)
		}
		row.Stages = append(row.Stages, metadata.Stage{
			Plugin: version.Name, Version: version.Version, Metered: version.Metered,
			Projection: uint16(manifest.Projection), Config: config, Unique: manifest.Uses(plugins.VerdictUnique),
		})
		limits = widest(limits, manifest.Limits())
		if manifest.Uses("unique") {
			if unique != "" {
				return row, broker.Errorf(broker.PolicyViolation,
					"%s and %s both use unique; a chain has at most one: make one id of both", unique, version.Name)
			}
			unique = version.Name
		}
		if manifest.Uses("replace") {
			redacts = version.Name
		}
	}
	if err := checkPolicy(row.Policy, unique, redacts, spec.Force); err != nil {
		return row, err
	}
	var err error
	if row.Limits, err = limitsOf(limits, spec); err != nil {
		return row, err
	}
	for _, stage := range row.Stages {
		if err := s.Plugins.Try(ctx, stage, row.Limits); err != nil {
			return row, broker.Errorf(broker.InvalidConfig, "plugin %s@%s refuses to start: %v", stage.Plugin, stage.Version, err)
		}
	}
	return row, nil
}

// configOf checks a stage's configuration; none stands for an empty object where the plugin takes one.
func configOf(manifest *plugins.Manifest, stage *adminapi.Stage) ([]byte, error) {
	config := stage.Config
	if len(config) == 0 {
		if manifest.ConfigSchema == nil {
			return nil, nil
		}
		config = []byte("{}")
	}
	return config, manifest.CheckConfig(config)
}

// checkPolicy refuses what would hide or publish more than its name says (H48).
func checkPolicy(policy metadata.ErrorPolicy, unique, redacts string, force bool) error {
	switch {
	case force:
		return nil
	case policy == metadata.PolicySkip && unique != "":
		return broker.Errorf(broker.PolicyViolation,
			"skip with %s, which deduplicates, loses records at which it fails: choose dead-letter, or --force", unique)
	case policy == metadata.PolicyPass && redacts != "":
		return broker.Errorf(broker.PolicyViolation,
			"pass with %s, which changes records, publishes what it should have changed: choose dead-letter, or --force", redacts)
	}
	return nil
}

// widest takes of each bound that a manifest may set the larger one: the chain shares one row of limits.
func widest(a, b plugins.Limits) plugins.Limits {
	a.RecordFuel = max(a.RecordFuel, b.RecordFuel)
	a.MemoryBytesMax = max(a.MemoryBytesMax, b.MemoryBytesMax)
	a.RecordOutputMax = max(a.RecordOutputMax, b.RecordOutputMax)
	return a
}

// limitsOf are the limits of a row: the widest that its plugins ask for, or what the operator says.
func limitsOf(l plugins.Limits, spec *adminapi.ChainSpec) (metadata.Limits, error) {
	limits := metadata.Limits(l)
	if spec.RecordFuel > 0 {
		limits.RecordFuel = spec.RecordFuel
	}
	if spec.MemoryBytes > 0 {
		limits.MemoryBytesMax = spec.MemoryBytes
	}
	if spec.BlockBits > 0 {
		limits.BlockBits = uint8(min(spec.BlockBits, 255))
	}
	if err := plugins.Limits(limits).Check(); err != nil {
		return limits, broker.Errorf(broker.InvalidConfig, "%v", err)
	}
	return limits, nil
}

// stagePlugin finds NAME or NAME@VERSION among the uploads, else among the built-ins, which are admitted and stored now.
func (s *Server) stagePlugin(ctx context.Context, reference string) (*metadata.PluginVersion, *plugins.Manifest, error) {
	name, version, exact := strings.Cut(reference, "@")
	image := s.Metadata.Image()
	var found *metadata.PluginVersion
	for _, v := range image.Plugins() {
		if v.Name == name && (!exact || v.Version == version) {
			found = v
		}
	}
	if found != nil {
		manifest, err := plugins.ParseManifest(found.Manifest)
		return found, manifest, err
	}
	for _, b := range s.Plugins.Builtins() {
		if b.Manifest.Name == name && (!exact || b.Manifest.Version == version) {
			admitted, err := s.admit(ctx, b.Manifest, b.ManifestText, b.Module)
			if err != nil {
				return nil, nil, err
			}
			return &admitted.Version, b.Manifest, nil
		}
	}
	return nil, nil, broker.Errorf(broker.ResourceNotFound, "there is no plugin %q; `raftctl plugin list` lists them", reference)
}

// CreateBinding implements BindingService. It returns when every partition's first offset is decided (H34).
func (s *Server) CreateBinding(ctx context.Context, r *adminapi.CreateBindingRequest) (*adminapi.CreateBindingResponse, error) {
	if r.Group == "" || len(r.Topics) == 0 {
		return nil, broker.Errorf(broker.InvalidRequest, "a binding needs a group and at least one topic")
	}
	image := s.Metadata.Image()
	var topics []*metadata.Topic
	for _, name := range r.Topics {
		topic, err := named(image, name)
		if err != nil {
			return nil, err
		}
		if _, bound := image.BindingOf(r.Group, topic.ID); bound {
			return nil, broker.Errorf(broker.DuplicateResource, "group %q is bound on topic %q already: `raftctl bind update` cuts over", r.Group, name)
		}
		topics = append(topics, topic)
	}
	row, err := s.row(ctx, r.Chain)
	if err != nil {
		return nil, err
	}
	if row.AtLogStart, err = s.atLogStart(ctx, r.Group, r.StartAt); err != nil || r.ValidateOnly {
		return &adminapi.CreateBindingResponse{}, err
	}
	response := &adminapi.CreateBindingResponse{}
	for _, topic := range topics {
		made, err := submit[controller.BindingMade](ctx, s, controller.CreateBinding{Group: r.Group, Topic: topic.ID, Row: row})
		if err != nil {
			return nil, err
		}
		message, err := s.decided(ctx, made.Binding, made.Row)
		if err != nil {
			return nil, err
		}
		response.Bindings = append(response.Bindings, message)
	}
	return response, nil
}

// atLogStart says whether the first row of a group begins at the log start: on request, or where nobody has read yet.
func (s *Server) atLogStart(ctx context.Context, group string, at adminapi.StartAt) (bool, error) {
	switch at {
	case adminapi.StartAt_START_AT_LOG_START:
		return true, nil
	case adminapi.StartAt_START_AT_LOG_END:
		return false, nil
	}
	if group == "" {
		return true, nil
	}
	described, err := s.Groups.Describe(ctx, group)
	if broker.CodeOf(err) == broker.GroupIDNotFound {
		return true, nil
	}
	return err == nil && len(described.Members) == 0 && len(described.Offsets) == 0, err
}

// decided waits until a row has an offset in every partition and returns its binding.
func (s *Server) decided(ctx context.Context, id broker.BindingID, row broker.RowID) (*adminapi.Binding, error) {
	err := s.Metadata.Await(ctx, func(image *metadata.Image) bool {
		binding, ok := image.Binding(id)
		if !ok || binding.Detached {
			return true
		}
		for _, r := range image.Rows(id) {
			if r.ID == row {
				return len(r.From) >= len(image.Partitions(binding.Topic))
			}
		}
		return false
	})
	if err != nil {
		return nil, broker.Errorf(broker.RequestTimedOut,
			"the binding is made, but not every partition's leader has said where it begins; `raftctl bind describe` shows which: %v", err)
	}
	image := s.Metadata.Image()
	binding, ok := image.Binding(id)
	if !ok {
		return nil, broker.Errorf(broker.ResourceNotFound, "the binding was deleted meanwhile")
	}
	return s.binding(image, binding), nil
}

// UpdateBinding implements BindingService.
func (s *Server) UpdateBinding(ctx context.Context, r *adminapi.UpdateBindingRequest) (*adminapi.UpdateBindingResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil {
		return nil, err
	}
	row, err := s.row(ctx, r.Chain)
	if err != nil || r.ValidateOnly {
		return &adminapi.UpdateBindingResponse{Binding: s.binding(s.Metadata.Image(), binding)}, err
	}
	made, err := submit[controller.BindingMade](ctx, s, controller.UpdateBinding{Binding: binding.ID, Row: row})
	if err != nil {
		return nil, err
	}
	message, err := s.decided(ctx, binding.ID, made.Row)
	return &adminapi.UpdateBindingResponse{Binding: message}, err
}

// bindingOf finds a group's binding on a topic, or a view's own binding under the view's name; without a topic the only one.
func (s *Server) bindingOf(group, topicName string) (*metadata.Binding, error) {
	image := s.Metadata.Image()
	if view, ok := image.ViewNamed(group); ok && view.Own {
		if binding, ok := image.Binding(view.Binding); ok {
			return binding, nil
		}
	}
	var found []*metadata.Binding
	for _, binding := range image.Bindings() {
		topic, ok := image.Topic(binding.Topic)
		if binding.Group == group && (topicName == "" || ok && topic.Name == topicName) {
			found = append(found, binding)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, broker.Errorf(broker.ResourceNotFound, "no chain is bound to group %q%s; `raftctl bind list` lists bindings", group, onTopic(topicName))
	}
	return nil, broker.Errorf(broker.InvalidRequest, "group %q is bound on %d topics: name one", group, len(found))
}

func onTopic(name string) string {
	if name == "" {
		return ""
	}
	return " on topic \"" + name + "\""
}

// binding describes a binding with its rows.
func (s *Server) binding(image *metadata.Image, binding *metadata.Binding) *adminapi.Binding {
	message := &adminapi.Binding{
		Id: uint64(binding.ID), Group: binding.Group, TopicId: binding.Topic.String(), Detached: binding.Detached, DeadLetter: binding.DeadLetter,
	}
	if topic, ok := image.Topic(binding.Topic); ok {
		message.Topic = topic.Name
	}
	for _, view := range image.Views() {
		if view.Binding == binding.ID && view.Own {
			message.View = view.Name
		}
	}
	for _, row := range image.Rows(binding.ID) {
		message.Rows = append(message.Rows, s.rowMessage(image, binding, row))
	}
	return message
}

func (s *Server) rowMessage(image *metadata.Image, binding *metadata.Binding, row *metadata.Row) *adminapi.Row {
	message := &adminapi.Row{
		Id: uint64(row.ID), Policy: adminapi.ErrorPolicy(row.Policy),
		Window: &adminapi.Window{Blocks: row.WindowBlocks, WithinMs: row.WithinMs}, JudgeKey: s.Chains.JudgeKey(binding.Topic, row),
		RecordFuel: row.Limits.RecordFuel, BlockBits: uint32(row.Limits.BlockBits),
	}
	for _, stage := range row.Stages {
		message.Stages = append(message.Stages, &adminapi.Stage{Plugin: stage.Plugin + "@" + stage.Version, Config: stage.Config})
	}
	if b := row.Breaker; b.Failures > 0 {
		message.Breaker = &adminapi.Breaker{Failures: b.Failures, Offsets: b.Offsets}
	}
	for _, p := range image.Partitions(binding.Topic) {
		if at, ok := row.Tripped[p.Partition]; ok {
			message.Tripped = append(message.Tripped, &adminapi.Cutover{Partition: p.Partition, From: int64(at)})
		}
		if from, ok := row.From[p.Partition]; ok {
			message.From = append(message.From, &adminapi.Cutover{Partition: p.Partition, From: int64(from)})
		}
	}
	return message
}

// ListBindings implements BindingService.
func (s *Server) ListBindings(_ context.Context, r *adminapi.ListBindingsRequest) (*adminapi.ListBindingsResponse, error) {
	image := s.Metadata.Image()
	response := &adminapi.ListBindingsResponse{}
	for _, binding := range image.Bindings() {
		if r.Group == "" || binding.Group == r.Group {
			response.Bindings = append(response.Bindings, s.binding(image, binding))
		}
	}
	return response, nil
}

// DeleteBinding implements BindingService.
func (s *Server) DeleteBinding(ctx context.Context, r *adminapi.DeleteBindingRequest) (*adminapi.DeleteBindingResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil || r.ValidateOnly {
		return &adminapi.DeleteBindingResponse{}, err
	}
	_, err = submit[controller.BindingRemoved](ctx, s, controller.DeleteBinding{Binding: binding.ID})
	return &adminapi.DeleteBindingResponse{}, err
}
