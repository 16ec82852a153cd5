package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeBinding implements BindingService.
func (s *Server) DescribeBinding(_ context.Context, r *adminapi.DescribeBindingRequest) (*adminapi.DescribeBindingResponse, error) {
	binding, err := s.bindingOf(r.Group, r.Topic)
	if err != nil {
		return nil, err
	}
	image := s.Metadata.Image()
	response := &adminapi.DescribeBindingResponse{Binding: s.binding(image, binding)}
	for _, c := range s.Chains.Status(binding.ID) {
		origin, _ := image.Origin(binding.ID, c.Partition)
		response.Partitions = append(response.Partitions, &adminapi.ChainPartition{
			Partition: c.Partition, State: c.State, Reason: c.Reason, Origin: int64(origin), JudgedTo: int64(c.JudgedTo),
			LogStart: int64(c.LogStart), LastStable: int64(c.LastStable), ReachFrom: int64(c.ReachFrom), ReachFromMs: c.ReachFromMs,
			Passed: c.Passed, Dropped: c.Dropped, Duplicates: c.Duplicates, Replaced: c.Replaced, Lettered: c.Lettered, Failed: c.Failed,
			FuelUsed: c.FuelUsed, LastError: c.LastError, LastErrorOffset: int64(c.LastErrorOffset), LastStderr: c.LastStderr,
		})
		if warning := s.reachWarning(image, binding, c); warning != "" {
			response.Warnings = append(response.Warnings, warning)
		}
	}
	return response, nil
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
