package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// trioCutPart cuts leaders off from everybody, their clients included. Links can be cut between hosts alone, so this program
// runs the part once more in a sandbox that has some; without one the part is left out.
func trioCutPart(ctx context.Context, v *visit) error {
	if netns.Inside() {
		return v.struck(ctx, []strikes{{scenario: trioCut + "-leader", strike: strike{cut: true}}})
	}
	if why := netns.Why(); why != nil {
		fmt.Fprintf(v.log, "%s left out, it takes network namespaces: %v\n", trioCut, why)
		return nil
	}
	file := filepath.Join(v.work, trioCut+".json")
	// Of a flag that is given twice the second counts.
	err := netns.Enter(ctx, slices.Concat(v.arguments, []string{"-systems", v.system.Name(), "-scenarios", trioCut, "-rounds", "1",
		"-idle", "0s", "-dir", v.work, "-json", file})...)
	var found struct {
		Measures []measure
		Failures []string `json:"failed_visits"`
	}
	text, readErr := os.ReadFile(file)
	if readErr == nil {
		readErr = json.Unmarshal(text, &found)
	}
	for _, m := range found.Measures {
		m.Round = v.at.Round
		v.keep(m)
	}
	if err = errors.Join(err, readErr); err != nil {
		return fmt.Errorf("in a sandbox: %w %s", err, strings.Join(found.Failures, "; "))
	}
	return os.Remove(file)
}

// newHosts makes the sandbox ready and gives each broker a host in it. Nil outside of one.
func newHosts(ctx context.Context) (*netns.Router, error) {
	if !netns.Inside() {
		return nil, nil
	}
	if err := netns.Settle(); err != nil {
		return nil, err
	}
	return netns.NewRouter(ctx, trioNodes, 1)
}
