package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// goSuite is the functional test suite of a Go client, run from a copy of its module: addresses and the like are fixed in
// the source.
type goSuite struct {
	name, module string
	edits        []edit
	packages     string // what to test, below the module
	build        []string
	tests        string // a pattern of those that need a broker
	timeout      time.Duration
	bind         string   // of the broker's client listener
	config       []string // more of the broker's configuration
	env          []string
	beside       func(ctx context.Context, shop workshop, dir string) (stop func(), err error) // what has to run beside the broker
	waits        []wait
}

// edit is a change to a file of the copy.
type edit struct {
	file     string
	from, to string // a regular expression and what stands for it
}

// wait names what a failure waits for, by the test's name or by its last words.
type wait struct {
	test, words string // regular expressions; empty matches
	capability  string
	slow        bool // it would wait for long, so it is not run
}

func goSuites(o options) []goSuite {
	return []goSuite{saramaSuite(), kafkaGoSuite(o)}
}

// run builds the suite and runs it against a broker of its own.
func (g goSuite) run(ctx context.Context, shop workshop, program, dir string) report {
	started := time.Now()
	base := result{client: g.name, version: "unknown", from: "Go", outcome: passed}
	source, version, err := g.copy(ctx, shop)
	if err != nil {
		return report{base.failed("install", err)}
	}
	base.version = version
	binary := shop.bin(g.name + ".test")
	if err := shell(ctx, source, "go", slices.Concat([]string{"test", "-c", "-mod=mod", "-o", binary}, g.build, []string{g.packages})...); err != nil {
		return report{base.failed("install", err)}
	}
	tests, err := g.against(ctx, shop, program, dir, filepath.Join(source, g.packages), binary)
	if err != nil {
		return report{base.failed("run", err)}
	}
	results := tests.report(base, g.waits)
	for _, one := range results {
		if one.outcome == failed {
			fmt.Printf("%s: %s: %s\n", g.name, one.step, line(one.why))
		}
	}
	fmt.Printf("%s %s: %s, %.1f s\n", g.name, version, results[0].why, time.Since(started).Seconds())
	return results
}

// against runs the tests with a broker of their own.
func (g goSuite) against(ctx context.Context, shop workshop, program, dir, source, binary string) (tests *tested, err error) {
	if !free(g.bind) {
		return nil, skipped(g.bind + " is taken, and the suite asks for it")
	}
	dir = filepath.Join(dir, g.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	broker, err := startBrokerAt(ctx, program, dir, g.bind, g.config...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, broker.stop()) }()
	if g.beside != nil {
		stop, err := g.beside(ctx, shop, dir)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	run := testRun{dir: source, program: binary, timeout: g.timeout, only: g.tests, env: g.env}
	for _, w := range g.waits {
		if !w.slow {
			continue
		}
		named, err := testsNamed(source, w.test)
		if err != nil {
			return nil, err
		}
		run.without = append(run.without, named...)
	}
	tests, err = run.tests(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range run.without {
		tests.outcomes[name] = "not run"
	}
	return tests, nil
}

// copy copies the module out of the cache, in the version that the drivers' go.mod pins, and edits it.
func (g goSuite) copy(ctx context.Context, shop workshop) (dir, version string, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", g.module)
	cmd.Dir = shop.source("go")
	out, err := cmd.Output()
	if err != nil {
		return "", "", skipped(fmt.Sprintf("find %s: %v", g.module, err))
	}
	from, version, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	dir = shop.bin(g.name + "-source")
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(from))); err != nil {
		return "", "", err
	}
	// Files of the cache may not be written to.
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	for _, e := range g.edits {
		err = errors.Join(err, e.apply(dir))
	}
	return dir, strings.TrimPrefix(version, "v"), err
}

func (e edit) apply(dir string) error {
	name := filepath.Join(dir, e.file)
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	changed := regexp.MustCompile(e.from).ReplaceAll(text, []byte(e.to))
	if bytes.Equal(changed, text) {
		return fmt.Errorf("%s has no %s any more", e.file, e.from)
	}
	return os.WriteFile(name, changed, 0o644)
}

// testsNamed lists the tests of a folder whose names match.
func testsNamed(dir, pattern string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	declared, wanted := regexp.MustCompile(`(?m)^func (Test\w*)\(`), regexp.MustCompile(pattern)
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			if wanted.MatchString(match[1]) {
				names = append(names, match[1])
			}
		}
	}
	return names, nil
}

// waitsFor returns the capability that a failure waits for, or nothing.
func waitsFor(waits []wait, test, words string) string {
	for _, w := range waits {
		if regexp.MustCompile(w.test).MatchString(test) && regexp.MustCompile(w.words).MatchString(words) {
			return w.capability
		}
	}
	return ""
}

// saramaSuite wants five brokers behind toxiproxy: here all five names are one broker, and topics have one replica.
func saramaSuite() goSuite {
	return goSuite{
		name: "sarama-suite", module: "github.com/IBM/sarama", packages: ".", build: []string{"-tags", "functional"},
		tests: "^(TestFunc|TestVersionMatrix)", timeout: 8 * time.Minute, bind: "127.0.0.1:39091",
		edits:  []edit{{"functional_test.go", `ReplicationFactor: +[23],`, "ReplicationFactor: 1,"}},
		config: []string{"listeners.client.advertise: 127.0.0.1:29091"},
		env:    []string{"TOXIPROXY_ADDR=http://" + toxiproxyAddress, "KAFKA_VERSION=4.1.0"},
		beside: toxiproxies,
		waits: []wait{
			{test: "^TestFuncTxn", capability: "transactions", slow: true},
			{test: "Transactions$|^TestFuncInitProducerId3$", capability: "transactions"},
			{test: "^TestFuncAdminAlterPartitionReassignments$", capability: "replicas that can be moved (AlterPartitionReassignments)"},
			{test: "^TestFuncAdminDescribeConfig$", capability: "documentation of a broker's configs"},
			{test: "^TestFuncAdminIncrementalAlterConfigs$", capability: "a broker's configs that change while it runs"},
			{test: "^TestFuncAdminUpdateFeatures$", capability: "features that are listed"},
			{test: "^TestFuncAdminDescribeLogDirs$", capability: "five brokers"},
			{test: "^TestFuncAdminQuotas$", capability: "client quotas"},
			{test: "^TestFuncAdminListConsumerGroupOffsets$", words: "docker", capability: "brokers in docker, one of which it stops"},
		},
	}
}

const (
	toxiproxyAddress = "127.0.0.1:8474"
	toxiproxyModule  = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
)

// toxiproxies runs toxiproxy with five names for the one broker.
func toxiproxies(ctx context.Context, shop workshop, dir string) (stop func(), err error) {
	if err := shell(ctx, dir, "env", "GOBIN="+shop.bin("toxiproxy"), "go", "install", toxiproxyModule); err != nil {
		return nil, err
	}
	if !free(toxiproxyAddress) {
		return nil, skipped(toxiproxyAddress + " is taken, and the suite asks for it")
	}
	cmd := exec.Command(shop.bin("toxiproxy", "server"), "-host", "127.0.0.1", "-port", "8474")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { _, _ = cmd.Process.Signal(syscall.SIGTERM), cmd.Wait() }
	if !eventually(ctx, 10*time.Second, func() bool { return listens(ctx, toxiproxyAddress) }) {
		stop()
		return nil, errors.New("toxiproxy did not come up")
	}
	for i := 1; i <= 5; i++ {
		proxy := fmt.Sprintf(`{"name":"kafka%d","listen":"127.0.0.1:2909%d","upstream":"127.0.0.1:39091","enabled":true}`, i, i)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+toxiproxyAddress+"/proxies", strings.NewReader(proxy))
		if err != nil {
			stop()
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			stop()
			return nil, fmt.Errorf("make a proxy: %w", err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode >= 300 {
			stop()
			return nil, fmt.Errorf("make a proxy: %s %w", response.Status, err)
		}
	}
	return stop, nil
}

// kafkaGoSuite wants its broker at localhost:9092. With -sasl, which needs a broker that speaks it, it may use its SASL
// listener at localhost:9093 too.
func kafkaGoSuite(o options) goSuite {
	g := goSuite{
		name: "kafka-go-suite", module: "github.com/segmentio/kafka-go", packages: ".", timeout: 10 * time.Minute,
		tests: ".", bind: "127.0.0.1:9092", config: []string{"auto.create.topics.enable: true", "group.min.session.timeout.ms: 100"},
		env: []string{"KAFKA_VERSION=4.1.0", "KAFKA_SKIP_NETTEST=1"},
	}
	if o.sasl == "" {
		g.waits = append(g.waits, wait{test: "SASL|Sasl", capability: "SASL (-sasl)"})
	} else {
		g.config = append(g.config, o.sasl)
	}
	return g
}
