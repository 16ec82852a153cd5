package raftctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// profile is a named cluster in the configuration file.
type profile struct {
	Brokers []string `yaml:"brokers"`
	Admin   string   `yaml:"admin"`
	TLSCA   string   `yaml:"tls_ca,omitempty"`
}

// profiles is the configuration file: $XDG_CONFIG_HOME/millrace/config.yaml.
type profiles struct {
	Current  string             `yaml:"current"`
	Profiles map[string]profile `yaml:"profiles"`
}

// Addresses when nothing says otherwise: a broker run by hand on this host.
const (
	defaultBroker = "127.0.0.1:9092"
	defaultAdmin  = "127.0.0.1:9094"
)

// homeFolder returns an XDG folder: the variable's, or the default below the home directory.
func (c *cli) homeFolder(variable, otherwise string) (string, error) {
	if dir, ok := c.lookup(variable); ok && dir != "" {
		return dir, nil
	}
	home, ok := c.lookup("HOME")
	if !ok || home == "" {
		return "", fmt.Errorf("neither %s nor HOME is set: set one, so that raftctl knows where its files are", variable)
	}
	return filepath.Join(home, otherwise), nil
}

func (c *cli) profileFile() (string, error) {
	dir, err := c.homeFolder("XDG_CONFIG_HOME", ".config")
	return filepath.Join(dir, "millrace", "config.yaml"), err
}

func (c *cli) readProfiles() (profiles, error) {
	all := profiles{Profiles: map[string]profile{}}
	name, err := c.profileFile()
	if err != nil {
		return all, err
	}
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, fmt.Errorf("read profiles: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(raw, &all, yaml.Strict()); err != nil {
		return all, fmt.Errorf("%s: %w", name, err)
	}
	if all.Profiles == nil {
		all.Profiles = map[string]profile{}
	}
	return all, nil
}

func (c *cli) writeProfiles(all profiles) error {
	name, err := c.profileFile()
	if err != nil {
		return err
	}
	raw, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name+".tmp", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// resolve fills in what flags left open: environment over profile over defaults.
func (c *cli) resolve() error {
	if c.resolved {
		return nil
	}
	c.resolved = true
	setting := func(flag *string, variable string) {
		if v, ok := c.lookup(variable); ok && *flag == "" {
			*flag = v
		}
	}
	setting(&c.admin, "MILLRACE_ADMIN")
	setting(&c.caFile, "MILLRACE_TLS_CA")
	setting(&c.profile, "MILLRACE_PROFILE")
	if v, ok := c.lookup("MILLRACE_BROKERS"); ok && len(c.brokers) == 0 && v != "" {
		c.brokers = strings.Split(v, ",")
	}
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	name := c.profile
	if name == "" {
		name = all.Current
	}
	chosen, ok := all.Profiles[name]
	if !ok && c.profile != "" {
		return usageError("there is no profile %q; `raftctl dev up` makes profile dev", c.profile)
	}
	if c.admin == "" {
		c.admin = orElse(chosen.Admin, defaultAdmin)
	}
	if c.caFile == "" {
		c.caFile = chosen.TLSCA
	}
	if len(c.brokers) == 0 {
		c.brokers = chosen.Brokers
	}
	if len(c.brokers) == 0 {
		c.brokers = []string{defaultBroker}
	}
	return nil
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
