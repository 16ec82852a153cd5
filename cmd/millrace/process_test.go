package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

// asProgram in the environment makes the test binary the program itself, so that tests have a process to throw things at.
const asProgram = "MILLRACE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a broker in a process of its own, with a well-behaved client beside.
type process struct {
	t             testing.TB
	cmd           *exec.Cmd
	client, admin string
	good          *sdk.Client
	ended         chan struct{}
	produced      int
}

func startProcess(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{})}
	dir := t.TempDir()
	p.cmd = exec.Command(os.Args[0], append([]string{"run", "--init", "--data", dir + "/data", "--listeners-client-bind", "127.0.0.1:0",
		"--listeners-cluster-bind", "127.0.0.1:0", "--listeners-admin-bind", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serves := make(chan bool, 1)
	go p.watch(stderr, serves)
	t.Cleanup(p.stop)
	if !<-serves {
		t.Fatal("the broker ended before it served")
	}
	p.good, err = sdk.New(sdk.WithBrokers(p.client), sdk.WithAdmin("http://"+p.admin), sdk.WithTransport(sdk.TCP))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.good.CreateTopic(t.Context(), "good", 1, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// watch reads the process' log, in which it says where it serves, and shows what is worse than a warning.
func (p *process) watch(log io.Reader, serves chan<- bool) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct{ Level, Message, Client, Admin string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Level == "error" {
			p.t.Logf("broker: %s", lines.Bytes())
		}
		if line.Message == "node serves" {
			p.client, p.admin = line.Client, line.Admin
			serves <- true
		}
	}
	close(p.ended)
	close(serves)
}

func (p *process) stop() {
	if p.good != nil {
		_ = p.good.Close() // after a failed test the broker may be gone
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the broker did not stop well: %v", err)
	}
}

// memory reads a line of the process' memory figures, in bytes: VmRSS is what it has, VmHWM the most that it had.
func (p *process) memory(line string) int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skipf("no memory figures here: %v", err)
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return kib << 10
		}
	}
	p.t.Fatalf("no %s in the process' figures", line)
	return 0
}

// bound is what an attack may cost the broker.
type bound struct {
	memory int64 // bytes of resident memory beyond what it had before
	took   time.Duration
}

// survives runs an attack and then looks at what is left: the broker lives, has not taken more than the bound at any
// moment, and serves its other client at once.
func (p *process) survives(name string, b bound, attack func(t *testing.T)) {
	t, ok := p.t.(*testing.T)
	if !ok {
		p.t.Fatal("attacks are parts of a test")
	}
	t.Run(name, func(t *testing.T) {
		// Writing 5 makes the high-water mark that of now.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
			t.Skipf("the memory's high-water mark cannot be reset here: %v", err)
		}
		before, began := p.memory("VmRSS"), time.Now()
		attack(t)
		took, grew := time.Since(began), p.memory("VmHWM")-before
		t.Logf("%s, %d MiB more", took.Round(time.Millisecond), grew>>20)
		if took > b.took {
			t.Errorf("took %s; %s are allowed", took, b.took)
		}
		if grew > b.memory {
			t.Errorf("the broker grew by %d MiB; %d are allowed", grew>>20, b.memory>>20)
		}
		p.serves(t)
	})
}

// serves produces a record and reads it back.
func (p *process) serves(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		t.Fatal("the broker is gone")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p.produced++
	want := fmt.Sprint("record ", p.produced)
	if err := p.good.Produce(ctx, &sdk.Record{Topic: "good", Value: []byte(want)}); err != nil {
		t.Fatalf("the other client: %v", err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(p.client), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		"good": {0: kgo.NewOffset().At(int64(p.produced - 1))},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetches := reader.PollFetches(ctx)
	if records := fetches.Records(); len(records) == 0 || string(records[0].Value) != want {
		t.Fatalf("read back %d records, errors %v", len(records), fetches.Errors())
	}
}

// dial opens a connection that ends with the test.
func (p *process) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
