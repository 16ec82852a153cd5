package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// verbTimeout bounds a driver that is asked to do one thing and end.
const verbTimeout = 30 * time.Second

// delivered is one record as a client handed it to its application.
type delivered struct {
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Key       string `json:"key"`
}

// event is one line of a driver.
type event struct {
	Event      string  `json:"event"`
	Partitions []int32 `json:"partitions"`
	delivered
}

// driver is a client's program with the arguments that every verb gets.
type driver struct {
	command   []string
	bootstrap string
}

// running is one process of a driver.
type running struct {
	cmd   *exec.Cmd
	group *task.Group
	take  func(r *running, line []byte) bool // files a line of stdout if it is an event; it holds mu

	mu       sync.Mutex // guards all below
	assigned []int32
	records  []delivered
	said     bytes.Buffer // stderr, and stdout that is no event
}

// start runs a verb.
func (d driver) start(ctx context.Context, verb string, arguments ...string) (*running, error) {
	return launch(ctx, slices.Concat(d.command, []string{verb, "bootstrap=" + d.bootstrap}, arguments), (*running).event)
}

// launch runs a command whose events take understands.
func launch(ctx context.Context, command []string, take func(*running, []byte) bool) (*running, error) {
	r := &running{cmd: exec.CommandContext(ctx, command[0], command[1:]...), group: task.NewGroup(ctx), take: take}
	r.cmd.Env = append(os.Environ(), "KAFKAJS_NO_PARTITIONER_WARNING=1")
	r.cmd.WaitDelay = time.Second
	// A process group, because a driver may be a shell with children.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Cancel = func() error { return syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }
	r.cmd.Stderr = writer(r.say)
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	r.group.Go("events", func(context.Context) error { return r.listen(out) })
	return r, nil
}

// run runs a verb that ends by itself and returns the records that it delivered.
func (d driver) run(ctx context.Context, verb string, arguments ...string) ([]delivered, error) {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	r, err := d.start(ctx, verb, arguments...)
	if err != nil {
		return nil, err
	}
	err = r.wait(ctx)
	return r.seen(), err
}

// listen takes the driver's events until its stdout closes.
func (r *running) listen(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		r.mu.Lock()
		taken := r.take(r, lines.Bytes())
		r.mu.Unlock()
		if !taken {
			r.say(append(bytes.Clone(lines.Bytes()), '\n'))
		}
	}
	return lines.Err()
}

// event takes a line of the driver protocol.
func (r *running) event(line []byte) bool {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return false
	}
	switch e.Event {
	case "assigned":
		r.assigned = e.Partitions
	case "record":
		r.records = append(r.records, e.delivered)
	}
	return true
}

// writer makes a function an io.Writer.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func (r *running) say(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said.Len() < 64<<10 {
		r.said.Write(text)
	}
}

// partitions returns what the member owns, sorted.
func (r *running) partitions() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.assigned))
}

// seen returns what was delivered so far.
func (r *running) seen() []delivered {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// lastWords is the end of what the driver said beside its events, on one line.
func (r *running) lastWords() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(r.said.String()), "\n")
	text := strings.Join(lines[max(0, len(lines)-2):], " | ")
	return text[max(0, len(text)-300):]
}

// wait waits until the process has ended.
func (r *running) wait(ctx context.Context) error {
	err := errors.Join(r.group.Wait(), r.cmd.Wait())
	if ctx.Err() != nil {
		return fmt.Errorf("did not end in time: %s", r.lastWords())
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, r.lastWords())
	}
	return nil
}

// endedBySignal is how Java leaves after SIGTERM, however well it ended.
const endedBySignal = 128 + int(syscall.SIGTERM)

// stop asks the process to end, so that it commits and leaves its group, and waits for it.
func (r *running) stop(ctx context.Context) error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	end := time.AfterFunc(15*time.Second, func() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) })
	err := r.wait(ctx)
	if !end.Stop() {
		return fmt.Errorf("did not end within 15 s of SIGTERM: %s", r.lastWords())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == endedBySignal {
		return nil
	}
	return err
}

// abandon ends the process without manners; it is for the ways out that have an error to report already.
func (r *running) abandon() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	_ = r.group.Wait()
	_ = r.cmd.Wait()
}
