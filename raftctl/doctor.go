package raftctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
)

// What the doctor finds worth saying.
const (
	doctorWithin    = 5 * time.Second // for one node, or one listener
	skewNoted       = 500 * time.Millisecond
	skewWrong       = 5 * time.Second
	certificateSoon = 30 * 24 * time.Hour
	diskShare       = 10 // below a tenth free
)

// The severities of findings.
const (
	severityError   = "error"
	severityWarning = "warning"
)

// finding is one thing that somebody should do something about.
type finding struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Where    string `json:"where"`
	Do       string `json:"do"`
}

// doctor collects findings, each once.
type doctor struct {
	cli      *cli
	findings []finding
}

func (d *doctor) find(severity, where, do, what string, args ...any) {
	f := finding{Severity: severity, What: fmt.Sprintf(what, args...), Where: where, Do: do}
	if !slices.Contains(d.findings, f) {
		d.findings = append(d.findings, f)
	}
}

// ward is what one node said of itself.
type ward struct {
	node    string
	cluster *adminapi.GetClusterResponse
	config  *adminapi.GetNodeConfigResponse
	ahead   time.Duration // of this machine's clock
}

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what an operator should know: nodes, listeners, partitions, disks, clocks, certificates, configuration",
		Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error { return c.doctor(cmd.Context()) },
	}
}

func (c *cli) doctor(ctx context.Context) error {
	d := &doctor{cli: c}
	err := c.call(ctx, func(ctx context.Context, client *sdk.Client) error {
		cluster, err := client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
		if err != nil {
			return err
		}
		d.quorum(cluster)
		var wards []ward
		for _, n := range cluster.Nodes {
			if w, ok := d.node(ctx, n); ok {
				wards = append(wards, w)
			}
		}
		d.compare(cluster, wards)
		return d.topics(ctx, client)
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(d.findings, func(a, b finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return d.report()
}

func (d *doctor) report() error {
	t := &table{columns: []string{"severity", "what", "where", "what to do"}}
	wrong := 0
	for _, f := range d.findings {
		t.add(f.Severity, f.What, f.Where, f.Do)
		if f.Severity == severityError {
			wrong++
		}
	}
	if len(d.findings) == 0 {
		d.cli.say("nothing to do")
		t = &table{}
	}
	if len(d.findings) > 0 || d.cli.forPrograms() {
		if err := d.cli.showValue(append([]finding{}, d.findings...), t); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return unhealthy("%s to see to", plural(wrong, "error"))
	}
	return nil
}

// quorum looks at who votes.
func (d *doctor) quorum(cluster *adminapi.GetClusterResponse) {
	voters, leaders := 0, 0
	for _, n := range cluster.Nodes {
		if n.Voter {
			voters++
		}
		if n.RaftLeader {
			leaders++
		}
	}
	switch {
	case voters%2 == 0 && voters > 0:
		d.find(severityWarning, "metadata quorum", "promote or remove one: `raftctl controller members`", "%d voters bear no more failures than %d", voters, voters-1)
	case voters == 1 && len(cluster.Nodes) > 2:
		d.find(severityWarning, "metadata quorum", "`raftctl controller members promote` two more", "one voter of %d nodes: nothing is decided while it is down", len(cluster.Nodes))
	}
	if leaders == 0 {
		d.find(severityError, "metadata quorum", "start a majority of the voters", "no leader is known")
	}
}

// node dials what a node advertises and asks it about itself.
func (d *doctor) node(ctx context.Context, n *adminapi.Node) (w ward, ok bool) {
	where := fmt.Sprintf("node %d", n.Id)
	switch {
	case len(n.Endpoints) == 0:
		d.find(severityError, where, "start it, or `raftctl controller members remove` it", "a member that never registered")
		return w, false
	case n.Fenced && !n.Stopping:
		d.find(severityError, where, "start it, or read its log", "not serving (fenced)")
	case n.Stopping:
		d.find(severityWarning, where, "wait, or start it again", "stopping")
	}
	admin := ""
	for _, e := range n.Endpoints {
		address := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		dialer := net.Dialer{Timeout: doctorWithin}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			d.find(severityError, where, "start it, open the port, or set listeners."+e.Listener+".advertise to what clients can reach",
				"its %s listener cannot be reached from here: %v", e.Listener, err)
			continue
		}
		_ = conn.Close()
		if e.Listener == "admin" {
			admin = address
		}
	}
	if admin == "" {
		return w, false
	}
	return d.ask(ctx, where, admin)
}

// ask has a node tell of itself, and what it finds wrong.
func (d *doctor) ask(ctx context.Context, where, address string) (w ward, ok bool) {
	tls := strings.HasPrefix(d.cli.admin, "https://")
	if tls {
		address = "https://" + address
	}
	ctx, cancel := context.WithTimeout(ctx, doctorWithin)
	defer cancel()
	proof, err := d.cli.proof(tls)
	var client *sdk.Client
	if err == nil {
		client, err = sdk.New(append(proof, sdk.WithAdmin(address))...)
	}
	w = ward{node: where}
	var health *adminapi.GetHealthResponse
	if err == nil {
		defer func() { _ = client.Close() }()
		w.cluster, err = client.Cluster().GetCluster(ctx, &adminapi.GetClusterRequest{})
	}
	if err == nil {
		health, err = client.Cluster().GetHealth(ctx, &adminapi.GetHealthRequest{})
	}
	asked := d.cli.now()
	if err == nil {
		w.config, err = client.Cluster().GetNodeConfig(ctx, &adminapi.GetNodeConfigRequest{})
	}
	if err != nil {
		why := d.cli.complaint(err).Error
		if errors.Is(err, context.DeadlineExceeded) {
			why = "nothing came within " + doctorWithin.String()
		}
		d.find(severityError, where, "read its log", "its admin listener does not answer: %s", why)
		return w, false
	}
	answered := d.cli.now()
	if ms := w.config.GetNowMs(); ms > 0 {
		w.ahead = time.UnixMilli(ms).Sub(asked.Add(answered.Sub(asked) / 2))
	}
	for _, p := range health.Problems {
		if !strings.HasPrefix(p.Subject, "node ") { // Nodes were looked at already.
			d.find(severityError, p.Subject, p.Action, "%s", p.What)
		}
	}
	d.machine(w)
	return w, true
}

// machine looks at a node's disk and certificate.
func (d *doctor) machine(w ward) {
	c := w.config
	free, total := c.GetDiskFreeBytes(), c.GetDiskTotalBytes()
	switch {
	case c.GetReadOnly():
		d.find(severityError, w.node, "delete topics or records, or add space", "too little space, %s free: records from clients are refused", bytesText(int64(free)))
	case total > 0 && free < total/diskShare:
		d.find(severityWarning, w.node, "add space, or keep less", "%s of %s free", bytesText(int64(free)), bytesText(int64(total)))
	}
	if ms := c.GetCertificateExpiresMs(); ms > 0 {
		switch left := time.UnixMilli(ms).Sub(d.cli.now()); {
		case left <= 0:
			d.find(severityError, w.node, "give it a new certificate", "its certificate has expired: no other node talks to it")
		case left < certificateSoon:
			d.find(severityWarning, w.node, "give it a new certificate", "its certificate expires in %d days", int(left.Hours()/24))
		}
	}
}

// topics looks for those that ask for what they cannot have.
func (d *doctor) topics(ctx context.Context, client *sdk.Client) error {
	r, err := client.Topics().ListTopics(ctx, &adminapi.ListTopicsRequest{})
	if err != nil {
		return err
	}
	for _, t := range r.Topics {
		if what, do := insyncBeyond(t); what != "" {
			d.find(severityWarning, "topic "+t.Name, do, "%s", what)
		}
	}
	return nil
}

// own are the configs that differ from node to node by their nature.
var own = []string{"advertised.listeners", "broker.rack", "log.dirs"}

// compare looks for nodes that contradict one another.
func (d *doctor) compare(cluster *adminapi.GetClusterResponse, wards []ward) {
	values := map[string]map[string][]string{} // by name and value, who has it
	versions := map[string][]string{}
	for _, w := range wards {
		if w.cluster.ClusterId != cluster.ClusterId {
			d.find(severityError, w.node, "correct its advertised addresses", "it belongs to cluster %s, the node that was asked first to %s", w.cluster.ClusterId, cluster.ClusterId)
		}
		versions[w.config.GetVersion()] = append(versions[w.config.GetVersion()], w.node)
		for _, c := range w.config.Configs {
			if slices.Contains(own, c.Name) {
				continue
			}
			if values[c.Name] == nil {
				values[c.Name] = map[string][]string{}
			}
			values[c.Name][c.Value] = append(values[c.Name][c.Value], w.node)
		}
		// Against the clock in the middle: one that is wrong blames itself alone.
		if skew := w.ahead - median(wards); skew.Abs() >= skewNoted {
			severity := severityWarning
			if skew.Abs() >= skewWrong {
				severity = severityError
			}
			d.find(severity, w.node, "run a time service on it", "its clock differs by %s from the others'", skew.Round(time.Millisecond))
		}
	}
	if len(versions) > 1 {
		d.find(severityWarning, "cluster", "finish the upgrade", "several versions run: %s", who(versions))
	}
	for name, byValue := range values {
		if len(byValue) > 1 {
			d.find(severityWarning, "config "+name, "give every node the same", "nodes differ: %s", who(byValue))
		}
	}
}

// median is the clock that most agree about.
func median(wards []ward) time.Duration {
	all := make([]time.Duration, len(wards))
	for i, w := range wards {
		all[i] = w.ahead
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// who lists values with who has them.
func who(by map[string][]string) string {
	var parts []string
	for value, nodes := range by {
		parts = append(parts, fmt.Sprintf("%s on %s", cmp.Or(value, "nothing"), strings.Join(nodes, " and ")))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
