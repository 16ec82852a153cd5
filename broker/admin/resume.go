package admin

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
)

// stateStopped is how delivery names a partition that stands still by the policy stop or by a breaker.
const stateStopped = "stopped"

// ResumeBinding implements BindingService. A verdict never changes, so nothing is tried again: the batch in front of which
// a partition stopped is judged under another policy, and what is behind it as before.
func (s *Server) ResumeBinding(ctx context.Context, r *adminapi.ResumeBindingRequest) (*adminapi.ResumeBindingResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil {
		return nil, err
	}
	policy := metadata.ErrorPolicy(r.Policy)
	if policy == 0 {
		policy = metadata.PolicyDeadLetter
	}
	if err := s.checkResume(ctx, binding, policy, r.Force); err != nil {
		return nil, err
	}
	if r.ValidateOnly {
		return &adminapi.ResumeBindingResponse{Binding: s.binding(s.Metadata.Image(), binding)}, nil
	}
	made, err := submit[controller.BindingMade](ctx, s, controller.ResumeBinding{Binding: binding.ID, Policy: policy})
	if err != nil {
		return nil, err
	}
	message, err := s.decided(ctx, binding.ID, made.Row)
	return &adminapi.ResumeBindingResponse{Binding: message}, err
}

// checkResume refuses what has nothing to resume, and what the policy would hide or publish (H48).
func (s *Server) checkResume(ctx context.Context, binding *metadata.Binding, policy metadata.ErrorPolicy, force bool) error {
	image := s.Metadata.Image()
	reports, known := s.chainStates(ctx, image, binding)
	stopped := false
	for _, status := range known {
		stopped = stopped || status.State == stateStopped
	}
	switch {
	case stopped:
	case len(silent(reports)) > 0:
		return broker.Errorf(broker.LeaderNotAvailable,
			"no partition of the binding is known to stand still, and node %d does not answer: %s", silent(reports)[0].Node, silent(reports)[0].Why)
	default:
		return broker.Errorf(broker.InvalidRequest, "no partition of the binding stands still; `raftctl bind describe` shows their states")
	}
	rows := image.Rows(binding.ID)
	if len(rows) == 0 {
		return broker.Errorf(broker.InvalidRequest, "the binding has no chain")
	}
	var unique, redacts string
	for _, stage := range rows[len(rows)-1].Stages {
		if stage.Unique {
			unique = stage.Plugin
		}
		version, ok := image.Plugin(stage.Plugin, stage.Version)
		if !ok {
			continue
		}
		if manifest, err := plugins.ParseManifest(version.Manifest); err == nil && manifest.Uses(plugins.VerdictReplace) {
			redacts = stage.Plugin
		}
	}
	return checkPolicy(policy, unique, redacts, force)
}
