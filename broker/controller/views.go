package controller

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// CreateView makes a read-only topic: the filtered log of a binding over its base topic. With Own it gets a binding of
// its own, made from Row in the same entry. Reply: ViewMade.
type CreateView struct {
	Name    string
	Base    broker.TopicID
	Binding broker.BindingID
	Own     *metadata.Row
}

// ViewMade tells the identities of a view.
type ViewMade struct {
	ID         broker.TopicID
	Binding    broker.BindingID
	Row        broker.RowID // of the binding of its own
	DeadLetter string
}

// DeleteView removes a view, and its own binding with it. Reply: ViewRemoved.
type DeleteView struct{ Name string }

// ViewRemoved tells the identity of a removed view.
type ViewRemoved struct{ ID broker.TopicID }

func (CreateView) request() {}
func (DeleteView) request() {}
func (ViewMade) reply()     {}
func (ViewRemoved) reply()  {}

func (c *Core) createView(head *metadata.Image, r CreateView) (Decision, error) {
	if err := checkNewName(head, r.Name); err != nil {
		return Decision{}, err
	}
	if _, err := bindable(head, r.Base); err != nil {
		return Decision{}, err
	}
	id, err := c.drawUUID(head)
	if err != nil {
		return Decision{}, err
	}
	view := &metadata.View{ID: id, Name: r.Name, Base: r.Base, Binding: r.Binding, Own: r.Own != nil}
	made := ViewMade{ID: id, Binding: r.Binding}
	var facts []*metadata.Fact
	if r.Own != nil {
		var binding BindingMade
		if facts, binding, err = c.bindingFacts(head, "", r.Name, r.Base, *r.Own); err != nil {
			return Decision{}, err
		}
		view.Binding = 0
		made.Binding, made.Row, made.DeadLetter = binding.Binding, binding.Row, binding.DeadLetter
	} else {
		b, _, err := attached(head, r.Binding)
		if err != nil {
			return Decision{}, err
		}
		if b.Topic != r.Base || b.Group == "" {
			return Decision{}, broker.Errorf(broker.InvalidRequest, "binding %d is not a group's on that topic", b.ID)
		}
		made.DeadLetter = b.DeadLetter
	}
	entries, err := packOne("view "+r.Name, append(facts, metadata.ViewFact(view))...)
	return Decision{Changes: entries, Reply: made}, err
}

func deleteView(head *metadata.Image, r DeleteView) (Decision, error) {
	v, ok := head.ViewNamed(r.Name)
	if !ok {
		return Decision{}, broker.Errorf(broker.UnknownTopicOrPartition, "there is no view %s", r.Name)
	}
	facts := []*metadata.Fact{metadata.ViewRemovedFact(v)}
	if b, bound := head.Binding(v.Binding); bound && v.Own {
		facts = append(facts, metadata.BindingRemovedFact(b))
	}
	return Decision{Changes: [][]*metadata.Fact{facts}, Reply: ViewRemoved{ID: v.ID}}, nil
}
