package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/millrace-io/millrace/sdk"
)

// guestName is the folder plugin as it is pushed.
const guestName = "bench-guest"

const guestManifest = "name: " + guestName + "\nversion: 1.0.0\nabi: 1\nlanguage: go\nprojection: [key]\nverdicts: [unique]\n"

// buildGuest compiles the folder plugin and returns the module.
func buildGuest(ctx context.Context, home workshop) ([]byte, error) {
	output := home.bin("guest.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w", "-o", output,
		"./"+filepath.Join("internal", "bench", "plugin"))
	cmd.Dir, cmd.Env = home.root, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the Go guest: %w\n%s", err, out)
	}
	return os.ReadFile(output)
}

// pushGuest uploads it to our broker.
func (m *millrace) pushGuest(ctx context.Context) error {
	module, err := buildGuest(ctx, m.home)
	if err != nil {
		return err
	}
	client, err := sdk.New(sdk.WithAdmin(m.admin))
	if err != nil {
		return err
	}
	_, err = client.PushPlugin(ctx, []byte(guestManifest), module)
	return errors.Join(err, client.Close())
}
