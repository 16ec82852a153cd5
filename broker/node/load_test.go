package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func environment(pairs ...string) func(string) (string, bool) {
	return func(key string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	file := write(t, "data: /from/file\nnode.id: 1\nlisteners:\n  client:\n    bind: 127.0.0.1:1\nnum.partitions: 3\n")
	c, err := Load(file,
		environment("MILLRACE_NODE_ID", "2", "MILLRACE_LISTENERS_CLIENT_BIND", "127.0.0.1:2", "MILLRACE_PROFILE", "dev"),
		map[string]string{"node.id": "3"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/from/file" || c.NodeID != 3 || c.Client.Bind != "127.0.0.1:2" || c.DefaultPartitions != 3 {
		t.Errorf("got %+v", c)
	}
}

func TestNestedAndDottedKeysAreAlike(t *testing.T) {
	dotted, err := Load(write(t, "data: d\nlisteners.admin.bind: 127.0.0.1:7\n"), environment(), nil)
	if err != nil {
		t.Fatal(err)
	}
	nested, err := Load(write(t, "data: d\nlisteners:\n  admin:\n    bind: 127.0.0.1:7\n"), environment(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(dotted, nested) {
		t.Errorf("dotted %+v, nested %+v", dotted, nested)
	}
}

// TestBadConfigurationSaysWhatWhereAndWhatToDo lists every problem at once.
func TestBadConfigurationSaysWhatWhereAndWhatToDo(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "data: d\nlisteners:\n  client:\n    bindd: x\n", `:4: unknown key "listeners.client.bindd"`},
		{"near miss", "data: d\npartitions: 3\n", `unknown key "partitions"`},
		{"bad number", "data: d\nnum.partitions: many\n", `:2: num.partitions: "many" is not a whole number from 1 to 10000`},
		{"out of range", "data: d\nnode.id: -4\n", `:2: node.id: "-4" is not a whole number`},
		{"no port", "data: d\nlisteners.client.bind: localhost\n", `"localhost" is not HOST:PORT`},
		{"list", "data: [a, b]\n", `:1: data takes one value, not a list`},
		{"twice", "data: d\nlog.level: info\nlog:\n  level: warn\n", `log.level was given before, on line 2`},
		{"not yaml", "data: [\n", `is not YAML`},
		{"open admin", "data: d\nlisteners.admin.bind: 0.0.0.0:9094\n", `--insecure-admin`},
		{"open profiles", "data: d\ninsecure.admin: true\nlisteners.admin.bind: 0.0.0.0:9094\ndebug.pprof: true\n", `debug.pprof`},
		{"no data", "node.id: 1\n", `data: name the data directory`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(write(t, test.file), environment(), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
	_, err := Load(write(t, "nope: 1\nnum.partitions: x\n"), environment(), nil)
	for _, want := range []string{"nope", "num.partitions", "data:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all problems at once: %v lacks %q", err, want)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	if _, err := Load("", environment("MILLRACE_DATA", "d"), nil); err != nil {
		t.Error(err)
	}
}
