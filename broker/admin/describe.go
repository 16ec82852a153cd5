package admin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeBinding implements BindingService: every partition, as its leader knows it.
func (s *Server) DescribeBinding(ctx context.Context, r *adminapi.DescribeBindingRequest) (*adminapi.DescribeBindingResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil {
		return nil, err
	}
	image := s.Metadata.Image()
	response := &adminapi.DescribeBindingResponse{Binding: s.binding(image, binding)}
	reports, known := s.chainStates(ctx, image, binding)
	response.Silent = silent(reports)
	committed := s.committedOn(ctx, image, binding)
	for _, p := range image.Partitions(binding.Topic) {
		message := &adminapi.ChainPartition{
			Partition: p.Partition, State: stateUnknown, Leader: int32(p.Leader), Committed: -1, End: -1, Lag: -1, LastErrorOffset: -1,
		}
		if offset, ok := committed[p.Partition]; ok {
			message.Committed = int64(offset)
		}
		if c, ok := known[p.Partition]; ok {
			origin, _ := image.Origin(binding.ID, p.Partition)
			chainMessage(message, c, origin)
			if warning := s.reachWarning(image, binding, c); warning != "" {
				response.Warnings = append(response.Warnings, warning)
			}
		} else {
			message.Reason = unheard(reports, p)
		}
		response.Partitions = append(response.Partitions, message)
	}
	return response, nil
}

// stateUnknown is the state of a partition whose leader told nothing.
const stateUnknown = "unknown"

// chainStates asks the leaders of a binding's partitions how its chain does, by partition.
func (s *Server) chainStates(ctx context.Context, image *metadata.Image, binding *metadata.Binding) ([]Report, map[int32]ChainStatus) {
	reports := s.Nodes.Inquire(ctx, leaders(image, binding.Topic), Inquiry{Binding: binding.ID})
	known := map[int32]ChainStatus{}
	for _, report := range reports {
		for _, c := range report.Chains {
			// One that led until now may tell of it too: who leads says what counts.
			if p, ok := image.Partition(broker.TopicPartition{Topic: binding.Topic, Partition: c.Partition}); ok && p.Leader == report.Node {
				known[c.Partition] = c
			}
		}
	}
	return reports, known
}

// committedOn are a bound group's commits on the bound topic; none where they cannot be told.
func (s *Server) committedOn(ctx context.Context, image *metadata.Image, binding *metadata.Binding) map[int32]broker.Offset {
	topic, ok := image.Topic(binding.Topic)
	if !ok || binding.Group == "" {
		return nil
	}
	group, err := s.Groups.Describe(ctx, binding.Group)
	if err != nil {
		return nil // There may be no such group yet.
	}
	committed := map[int32]broker.Offset{}
	for _, o := range group.Offsets {
		if o.Topic == topic.Name {
			committed[o.Partition] = o.Offset
		}
	}
	return committed
}

// text makes what a plugin or a client wrote fit for a message, which must be UTF-8: else the whole answer is refused.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// chainMessage fills in what a partition's leader told.
func chainMessage(m *adminapi.ChainPartition, c ChainStatus, origin broker.Offset) {
	m.State, m.Reason, m.Origin, m.JudgedTo = c.State, c.Reason, int64(origin), int64(c.JudgedTo)
	m.LogStart, m.LastStable, m.ReachFrom, m.ReachFromMs = int64(c.LogStart), int64(c.LastStable), int64(c.ReachFrom), c.ReachFromMs
	m.Passed, m.Dropped, m.Duplicates, m.Replaced, m.Lettered, m.Failed = c.Passed, c.Dropped, c.Duplicates, c.Replaced, c.Lettered, c.Failed
	m.FuelUsed, m.LastError, m.LastErrorOffset, m.LastStderr = c.FuelUsed, text(c.LastError), int64(c.LastErrorOffset), text(c.LastStderr)
	m.End = int64(c.End)
	if m.Committed >= 0 && m.End >= 0 {
		m.Lag = max(0, m.End-m.Committed)
	}
}

// reachWarning says that the window's offsets run out before the time that the binding asks for.
func (s *Server) reachWarning(image *metadata.Image, binding *metadata.Binding, c ChainStatus) string {
	rows := image.Rows(binding.ID)
	if len(rows) == 0 || c.ReachFromMs <= 0 || c.ReachFrom <= c.LogStart {
		return ""
	}
	within := rows[len(rows)-1].WithinMs
	if reach := s.NowMs() - c.ReachFromMs; within > 0 && reach < within {
		return fmt.Sprintf("partition %d reaches back %s, which is shorter than within = %s: copies farther apart are delivered again; raise --window",
			c.Partition, (time.Duration(reach) * time.Millisecond).Round(time.Second), time.Duration(within)*time.Millisecond)
	}
	return ""
}

// CreateView implements ViewService.
func (s *Server) CreateView(ctx context.Context, r *adminapi.CreateViewRequest) (*adminapi.CreateViewResponse, error) {
	image := s.Metadata.Image()
	base, err := named(image, r.Topic)
	if err != nil {
		return nil, err
	}
	request := controller.CreateView{Name: r.Name, Base: base.ID}
	switch {
	case r.Group != "" && r.Chain != nil:
		return nil, broker.Errorf(broker.InvalidRequest, "a view shows a group's binding or has a chain of its own, not both")
	case r.Group != "":
		binding, ok := image.BindingOf(r.Group, base.ID)
		if !ok {
			return nil, broker.Errorf(broker.ResourceNotFound, "no chain is bound to group %q on topic %q: bind one first", r.Group, r.Topic)
		}
		request.Binding = binding.ID
	default:
		row, err := s.row(ctx, r.Chain)
		if err != nil {
			return nil, err
		}
		if row.AtLogStart, err = s.atLogStart(ctx, "", r.StartAt); err != nil {
			return nil, err
		}
		request.Own = &row
	}
	made, err := submit[controller.ViewMade](ctx, s, request)
	if err != nil {
		return nil, err
	}
	if request.Own != nil {
		if _, err := s.decided(ctx, made.Binding, made.Row); err != nil {
			return nil, err
		}
	}
	image = s.Metadata.Image()
	view, ok := image.ViewNamed(r.Name)
	if !ok {
		return nil, broker.Errorf(broker.ResourceNotFound, "view %q was deleted meanwhile", r.Name)
	}
	return &adminapi.CreateViewResponse{View: viewMessage(image, view)}, nil
}

func viewMessage(image *metadata.Image, view *metadata.View) *adminapi.View {
	message := &adminapi.View{Name: view.Name, Id: view.ID.String(), Binding: uint64(view.Binding), Detached: true}
	if base, ok := image.Topic(view.Base); ok {
		message.Topic, message.Detached = base.Name, false
	}
	if binding, ok := image.Binding(view.Binding); ok {
		message.Group = binding.Group
	}
	return message
}

// ListViews implements ViewService.
func (s *Server) ListViews(context.Context, *adminapi.ListViewsRequest) (*adminapi.ListViewsResponse, error) {
	image := s.Metadata.Image()
	response := &adminapi.ListViewsResponse{}
	for _, view := range image.Views() {
		response.Views = append(response.Views, viewMessage(image, view))
	}
	return response, nil
}

// DeleteView implements ViewService.
func (s *Server) DeleteView(ctx context.Context, r *adminapi.DeleteViewRequest) (*adminapi.DeleteViewResponse, error) {
	if _, ok := s.Metadata.Image().ViewNamed(r.Name); !ok {
		return nil, broker.Errorf(broker.ResourceNotFound, "there is no view %q; `raftctl view list` lists them", r.Name)
	}
	_, err := submit[controller.ViewRemoved](ctx, s, controller.DeleteView{Name: r.Name})
	return &adminapi.DeleteViewResponse{}, err
}

// DumpDecisions implements DebugService: what the delivery oracle needs beside a dump of the log.
func (s *Server) DumpDecisions(_ context.Context, r *adminapi.DumpDecisionsRequest) (*adminapi.DumpDecisionsResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil {
		return nil, err
	}
	image := s.Metadata.Image()
	response := &adminapi.DumpDecisionsResponse{Binding: s.binding(image, binding)}
	for _, p := range image.Partitions(binding.Topic) {
		if origin, ok := image.Origin(binding.ID, p.Partition); ok {
			response.Origins = append(response.Origins, &adminapi.Origin{Partition: p.Partition, Offset: int64(origin)})
		}
	}
	return response, nil
}
