package raftctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-io/millrace/plugins/builtin"
)

// The scripts run raftctl as a program; millrace is a program of the name that serves /readyz and nothing else.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"raftctl":  func() { os.Exit(Main()) },
		"millrace": func() { os.Exit(fakeMillrace(os.Args[1:])) },
	})
}

// fakeMillrace is `millrace run`. With a file named broken in its data directory's parent it ends at once.
func fakeMillrace(args []string) int {
	value := func(flag string) string {
		for i := range args {
			if args[i] == flag && i+1 < len(args) {
				return args[i+1]
			}
		}
		return ""
	}
	data := value("--data")
	if _, err := os.Stat(filepath.Join(filepath.Dir(data), "broken")); err == nil {
		os.Stderr.WriteString("starting\nthe data directory is of another age\n")
		return 7
	}
	// A script that fails must not leave it behind for long.
	limited, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stopped, stop := signal.NotifyContext(limited, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", value("--listeners-admin-bind"))
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 1
	}
	if err := os.MkdirAll(filepath.Join(data, "tls"), 0o700); err != nil {
		return 1
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusNotFound)
		}
	})}
	context.AfterFunc(stopped, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return 1
	}
	return 0
}

func TestScripts(t *testing.T) {
	goCache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Abs(filepath.Join("inspect", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	raftctl, err := exec.LookPath("raftctl")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			admin := httptest.NewServer(fakeAdmin())
			env.Defer(admin.Close)
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "orders"), kfake.SeedTopics(1, "copy"))
			if err != nil {
				return err
			}
			env.Defer(cluster.Close)
			silent, err := net.Listen("tcp", "127.0.0.1:0") // The kernel takes connections, and nobody accepts them.
			if err != nil {
				return err
			}
			env.Defer(func() { _ = silent.Close() })
			env.Setenv("SILENT", silent.Addr().String())
			guarded, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL())
			if err != nil {
				return err
			}
			env.Defer(guarded.Close)
			env.Setenv("GUARDED", strings.Join(guarded.ListenAddrs(), ","))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("LOGS", logs)
			env.Setenv("RAFTCTL", raftctl)
			env.Setenv("GOCACHE", strings.TrimSpace(string(goCache)))
			env.Setenv("MILLRACE_ADMIN", strings.TrimPrefix(admin.URL, "http://"))
			env.Setenv("MILLRACE_BROKERS", strings.Join(cluster.ListenAddrs(), ","))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "builtin": unpackBuiltin, "foreign": writeForeign,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// unpackBuiltin NAME DIR writes a built-in plugin as a project that needs no compiler.
func unpackBuiltin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: builtin NAME DIR")
	}
	plugin, err := builtin.Open(args[0])
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, manifestName), plugin.ManifestSource, 0o644))
	ts.Check(os.WriteFile(filepath.Join(dir, moduleName), plugin.Module, 0o644))
}

// foreign FILE writes the state of a local cluster whose process id is that of this process.
func writeForeign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: foreign FILE")
	}
	name := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(name), 0o755))
	state := fmt.Sprintf("- id: 1\n  data: %s\n  client: 127.0.0.1:1\n  cluster: 127.0.0.1:1\n  admin: 127.0.0.1:1\n  pid: %d\n  program: millrace\n",
		filepath.Join(filepath.Dir(name), "node-1"), os.Getpid())
	ts.Check(os.WriteFile(name, []byte(state), 0o644))
}
