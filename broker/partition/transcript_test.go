package partition

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/broker"
)

// TestTranscripts plays the files of testdata: events into a leader (or follower), effects out.
//
//	lead le=5 pe=1 isr=1,2,3 [min=2] [start=] end= [durable=] [hw=]   node 1 leads replicas 1, 2, 3 (rid n00, broker epoch n)
//	follow le=5 end= hw= last=                                        node 1 follows node 2
//	image le= pe= isr= [leader=] [fenced=2] [rid=2:201] [index=]      a newer image; what is left out stays
//	... [recovering]                                                  of lead, follow and image: elected uncleanly
//	append end= · durable end= · tick · at ms=                        time stands still but for "at"
//	sub node= id= end= last= [start=] [le=] [rid=] [be=] [index=]     "epochs" sets the log's epochs and their starts
//	ack node= id= d= [a=] · sent node= id= to= · gone node=
//	lags                                                              what each follower has not acknowledged
//	produce [le=] · outcome end= · higher le= · withdraw · heard · unheard    of the controller
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		h := &transcript{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var b strings.Builder
			h.run(t, d, &b)
			if b.Len() == 0 {
				return "ok\n"
			}
			return b.String()
		})
	})
}

type transcript struct {
	leader   *Leader
	follower *Follower
	img      Image
	nowMs    int64
	epochs   epochList
}

// epochList is a log's epochs, newest first, each with its first offset, as "epoch:start".
type epochList struct {
	starts     []broker.EpochEnd
	start, end broker.Offset
}

func (e epochList) EpochEnd(epoch broker.LeaderEpoch) broker.EpochEnd {
	end := e.end
	for _, s := range e.starts {
		if s.Epoch <= epoch {
			return broker.EpochEnd{Epoch: s.Epoch, End: end}
		}
		end = s.End
	}
	return broker.EpochEnd{Epoch: epoch, End: e.start}
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise int64) int64 {
	if !d.HasArg(key) {
		return otherwise
	}
	var text string
	d.ScanArgs(t, key, &text)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		d.Fatalf(t, "%s: %v", key, err)
	}
	return n
}

func nodes(t *testing.T, d *datadriven.TestData, key string, otherwise []broker.NodeID) []broker.NodeID {
	for _, arg := range d.CmdArgs {
		if arg.Key != key {
			continue
		}
		var list []broker.NodeID
		for _, v := range arg.Vals {
			n, err := strconv.Atoi(v)
			if err != nil {
				d.Fatalf(t, "%s: %v", key, err)
			}
			list = append(list, broker.NodeID(n))
		}
		return list
	}
	return otherwise
}

// image reads the arguments of lead, follow and image over the present image.
func (h *transcript) image(t *testing.T, d *datadriven.TestData) Image {
	img := h.img
	img.LeaderEpoch = broker.LeaderEpoch(number(t, d, "le", int64(img.LeaderEpoch)))
	img.PartitionEpoch = broker.PartitionEpoch(number(t, d, "pe", int64(img.PartitionEpoch)))
	img.Leader = broker.NodeID(number(t, d, "leader", int64(img.Leader)))
	img.Index = broker.Index(number(t, d, "index", int64(img.Index)+1))
	img.MinISR = int(number(t, d, "min", 2))
	img.ISR = nodes(t, d, "isr", img.ISR)
	img.Recovering = d.HasArg("recovering")
	img.Replicas = append([]Replica(nil), img.Replicas...)
	fenced := nodes(t, d, "fenced", nil)
	for i := range img.Replicas {
		r := &img.Replicas[i]
		r.Fenced = false
		for _, n := range fenced {
			r.Fenced = r.Fenced || n == r.Node
		}
		if number(t, d, "rid", 0)/100 == int64(r.Node) {
			r.ID = broker.ReplicaID(number(t, d, "rid", 0))
		}
		if be := number(t, d, "be", 0); be%10 == int64(r.Node) {
			r.Broker = broker.BrokerEpoch(be)
		}
	}
	return img
}

func (h *transcript) run(t *testing.T, d *datadriven.TestData, b *strings.Builder) {
	switch d.Cmd {
	case "lead", "follow":
		h.img = Image{Leader: 1}
		if d.Cmd == "follow" {
			h.img.Leader = 2
		}
		for n := broker.NodeID(1); n <= 3; n++ {
			h.img.Replicas = append(h.img.Replicas, Replica{Node: n, ID: broker.ReplicaID(n) * 100, Broker: broker.BrokerEpoch(n)})
		}
		h.img = h.image(t, d)
		end := number(t, d, "end", 0)
		log := Log{
			Start: broker.Offset(number(t, d, "start", 0)), End: broker.Offset(end),
			Durable: broker.Offset(number(t, d, "durable", end)), HighWatermark: broker.Offset(number(t, d, "hw", 0)),
		}
		h.epochs.start, h.epochs.end = log.Start, log.End
		if len(h.epochs.starts) == 0 {
			h.epochs.starts = []broker.EpochEnd{{Epoch: h.img.LeaderEpoch - 1}} // one earlier epoch, from the first offset on
		}
		if d.Cmd == "follow" {
			h.follower = Follow(1, h.img, log, broker.LeaderEpoch(number(t, d, "last", 4)))
			return
		}
		var fx Effects
		h.leader, fx = Lead(1, Limits{LagMaxMs: 10_000}, h.img, log, h.nowMs)
		h.print(b, fx)
	case "epochs":
		h.epochs.starts = nil
		for _, arg := range d.CmdArgs {
			e, start, _ := strings.Cut(arg.Key, ":")
			epoch, _ := strconv.Atoi(e)
			offset, _ := strconv.Atoi(start)
			h.epochs.starts = append(h.epochs.starts, broker.EpochEnd{Epoch: broker.LeaderEpoch(epoch), End: broker.Offset(offset)})
		}
	case "at":
		h.nowMs = number(t, d, "ms", h.nowMs)
		if h.leader != nil {
			h.print(b, h.leader.OnTick(h.nowMs))
		}
	default:
		if h.follower != nil {
			h.runFollower(t, d, b)
		} else {
			h.runLeader(t, d, b)
		}
	}
}

func (h *transcript) runLeader(t *testing.T, d *datadriven.TestData, b *strings.Builder) {
	l := h.leader
	node := broker.NodeID(number(t, d, "node", 0))
	id := SubscriptionID(number(t, d, "id", 0))
	end := broker.Offset(number(t, d, "end", 0))
	switch d.Cmd {
	case "image":
		h.img = h.image(t, d)
		goesOn, fx := l.OnImage(h.img, h.nowMs)
		if !goesOn {
			fmt.Fprintln(b, "resigns")
		}
		h.print(b, fx)
	case "append":
		l.OnAppend(end, h.nowMs)
		h.epochs.end = end
	case "durable":
		h.print(b, l.OnDurable(end))
	case "sub":
		h.subscribe(t, d, b, node, id, end)
	case "sent":
		l.OnSent(node, id, broker.Offset(number(t, d, "to", 0)))
	case "ack":
		durable := number(t, d, "d", 0)
		appended := broker.Offset(number(t, d, "a", durable))
		if number(t, d, "raw", 0) == 0 {
			l.OnSent(node, id, appended) // what is acknowledged was sent
		}
		h.print(b, l.OnAck(Ack{Node: node, Subscription: id, Durable: broker.Offset(durable), Appended: appended}, h.nowMs))
	case "lags":
		for _, lag := range l.Lags(h.nowMs) {
			fmt.Fprintf(b, "%d lacks %d for %d ms\n", lag.Node, lag.Records, lag.Ms)
		}
	case "gone":
		l.OnSessionEnd(node, h.nowMs)
	case "produce":
		err := l.CheckProduce(broker.LeaderEpoch(number(t, d, "le", -1)), true)
		fmt.Fprintln(b, "code", int(broker.CodeOf(err)))
	case "outcome":
		names := []string{"waiting", "committed", "too few replicas", "leadership lost"}
		fmt.Fprintln(b, names[l.Outcome(end)])
	case "higher":
		h.print(b, l.OnHigherEpoch(broker.LeaderEpoch(number(t, d, "le", 0))))
	case "withdraw":
		h.print(b, l.Withdraw())
	case "unheard", "heard":
		l.OnController(d.Cmd == "heard", h.nowMs)
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
}

func (h *transcript) subscribe(t *testing.T, d *datadriven.TestData, b *strings.Builder, node broker.NodeID, id SubscriptionID, end broker.Offset) {
	answer, fx := h.leader.OnSubscribe(Subscribe{
		Node: node, Subscription: id, End: end,
		Replica:     broker.ReplicaID(number(t, d, "rid", int64(node)*100)),
		Broker:      broker.BrokerEpoch(number(t, d, "be", int64(node))),
		LeaderEpoch: broker.LeaderEpoch(number(t, d, "le", int64(h.leader.Epoch()))),
		ImageIndex:  broker.Index(number(t, d, "index", 0)),
		Start:       broker.Offset(number(t, d, "start", 0)),
		LastEpoch:   broker.LeaderEpoch(number(t, d, "last", int64(h.leader.Epoch())-1)),
	}, h.epochs, h.nowMs)
	switch answer.Kind {
	case Park:
		fmt.Fprintln(b, "park")
	case Live:
		fmt.Fprintf(b, "live hw=%d start=%d\n", answer.HighWatermark, answer.Start)
	case Cut:
		fmt.Fprintf(b, "cut epoch=%d end=%d\n", answer.Cut.Epoch, answer.Cut.End)
	case Reset:
		fmt.Fprintf(b, "reset start=%d\n", answer.Start)
	case End:
		fmt.Fprintln(b, "end", reasonName(answer.Reason))
	}
	h.print(b, fx)
}

func (h *transcript) runFollower(t *testing.T, d *datadriven.TestData, b *strings.Builder) {
	f := h.follower
	id := SubscriptionID(number(t, d, "id", 0))
	position := func(key string) broker.Offset { return broker.Offset(number(t, d, key, 0)) }
	switch d.Cmd {
	case "ask":
		fmt.Fprintf(b, "%+v\n", f.Ask(id))
	case "live":
		ack, ok := f.OnLive(id, position("hw"), position("start"))
		fmt.Fprintf(b, "%v ack durable=%d appended=%d\n", ok, ack.Durable, ack.Appended)
	case "data":
		data := Data{
			Subscription: id, From: position("from"), End: position("end"), HighWatermark: position("hw"), Start: position("start"),
			FirstEpoch: broker.LeaderEpoch(number(t, d, "first", 5)), LastEpoch: broker.LeaderEpoch(number(t, d, "last", 5)),
		}
		verdict := f.CheckData(data)
		fmt.Fprintln(b, []string{"drop", "append", "stop"}[verdict])
		if verdict == Append {
			f.OnAppend(data)
		}
	case "mark":
		f.OnMark(id, position("hw"), position("start"))
	case "durable":
		f.OnDurable(position("end"))
	case "report":
		fmt.Fprintf(b, "%+v\n", f.Ack())
	case "cut":
		at, safe := f.OnCut(id, broker.EpochEnd{Epoch: broker.LeaderEpoch(number(t, d, "epoch", 0)), End: position("end")}, h.epochs)
		fmt.Fprintf(b, "at %d safe %v\n", at, safe)
	case "reset":
		fmt.Fprintln(b, "safe", f.OnReset(id, position("start")))
	case "truncated":
		f.OnTruncate(position("start"), position("end"), broker.LeaderEpoch(number(t, d, "last", 0)))
	case "image":
		h.img = h.image(t, d)
		fmt.Fprintln(b, "goes on", f.OnImage(h.img))
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	fmt.Fprintf(b, "start=%d hw=%d durable=%d end=%d\n", f.start, f.highWatermark, f.durable, f.end)
}

func (h *transcript) print(b *strings.Builder, fx Effects) {
	if fx.HighWatermark {
		fmt.Fprintf(b, "hw %d\n", h.leader.HighWatermark())
	}
	if p := fx.Proposal; p != nil {
		fmt.Fprintf(b, "propose le=%d pe=%d isr", p.LeaderEpoch, p.PartitionEpoch)
		for _, m := range p.ISR {
			fmt.Fprintf(b, " %d(rid %d, be %d)", m.Node, m.Replica, m.Broker)
		}
		if p.Recovered {
			fmt.Fprint(b, " recovered")
		}
		fmt.Fprintln(b)
	}
	for _, e := range fx.Ended {
		fmt.Fprintf(b, "end node=%d id=%d %s\n", e.Node, e.Subscription, reasonName(e.Reason))
	}
	if fx.Deposed {
		fmt.Fprintln(b, "deposed")
	}
}

func reasonName(r EndReason) string {
	return []string{"", "stale", "fenced", "unknown replica", "contradiction"}[r]
}
