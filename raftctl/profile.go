package raftctl

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// profile is a named cluster in the configuration file.
type profile struct {
	Brokers []string `yaml:"brokers"`
	Admin   string   `yaml:"admin"`
	TLSCA   string   `yaml:"tls_ca,omitempty"`

	TLS       bool   `yaml:"tls,omitempty"`
	TLSCert   string `yaml:"tls_cert,omitempty"`
	TLSKey    string `yaml:"tls_key,omitempty"`
	User      string `yaml:"user,omitempty"`
	Password  string `yaml:"password,omitempty"`
	Mechanism string `yaml:"sasl_mechanism,omitempty"`
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
	setting(&c.access.user, "MILLRACE_USER")
	setting(&c.access.password, "MILLRACE_PASSWORD")
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
	c.access.fill(chosen)
	if len(c.brokers) == 0 {
		c.brokers = chosen.Brokers
	}
	if len(c.brokers) == 0 {
		c.brokers = []string{defaultBroker}
	}
	return c.checkAddresses()
}

// checkAddresses finds what cannot be an address before it is dialled: the resolver's words would not tell.
func (c *cli) checkAddresses() error {
	for _, address := range c.brokers {
		if _, port, err := net.SplitHostPort(address); err != nil || !isPort(port) {
			return usageError("broker %q is not HOST:PORT", address)
		}
	}
	for _, address := range c.admins() {
		host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(address, "http://"), "https://"), "/")
		if _, port, err := net.SplitHostPort(host); err != nil || !isPort(port) {
			return usageError("admin listener %q is not HOST:PORT or https://HOST:PORT", address)
		}
	}
	return nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func (c *cli) profileCommand() *cobra.Command {
	return parent("profile", "Named clusters", c.profileList(), c.profileUse(), c.profileCreate(), c.profileDelete())
}

// jsonProfile is a profile as commands print it.
type jsonProfile struct {
	Name    string   `json:"name"`
	Current bool     `json:"current"`
	Brokers []string `json:"brokers"`
	Admin   string   `json:"admin"`
	TLSCA   string   `json:"tls_ca"`
	User    string   `json:"user"`
}

func (c *cli) profileList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List profiles", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		all, err := c.readProfiles()
		if err != nil {
			return err
		}
		t := &table{columns: []string{"profile", "current", "brokers", "admin", "+tls ca", "+user"}}
		list := []jsonProfile{}
		for _, name := range slices.Sorted(maps.Keys(all.Profiles)) {
			p := all.Profiles[name]
			list = append(list, jsonProfile{Name: name, Current: name == all.Current, Brokers: p.Brokers, Admin: p.Admin, TLSCA: p.TLSCA, User: p.User})
			t.add(name, name == all.Current, p.Brokers, p.Admin, p.TLSCA, p.User)
		}
		return c.showValue(map[string]any{"profiles": list}, t)
	}}
}

func (c *cli) profileUse() *cobra.Command {
	return &cobra.Command{Use: "use NAME", Short: "Make a profile the current one", Args: exactly("NAME"), RunE: func(_ *cobra.Command, args []string) error {
		return c.changeProfile(args[0], func(all *profiles) { all.Current = args[0] })
	}}
}

func (c *cli) profileCreate() *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME --brokers HOST:PORT,... --admin HOST:PORT [--tls-ca FILE] [--user NAME --password-file FILE]",
		Short: "Make or replace a profile, from the global flags, and make it the current one",
		Args:  exactly("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(c.brokers) == 0 || c.admin == "" {
				return usageError("profile create: say where the cluster is with --brokers and --admin")
			}
			if args[0] == "" {
				return usageError("profile create: the name is empty")
			}
			if err := c.checkAddresses(); err != nil {
				return err
			}
			made := profile{Brokers: c.brokers, Admin: c.admin}
			if c.caFile != "" {
				var err error
				if made.TLSCA, err = filepath.Abs(c.caFile); err != nil {
					return err
				}
			}
			if err := c.access.keep(&made); err != nil {
				return err
			}
			all, err := c.readProfiles()
			if err != nil {
				return err
			}
			all.Profiles[args[0]], all.Current = made, args[0]
			return errors.Join(c.writeProfiles(all), c.showProfile(all, args[0]))
		},
	}
}

func (c *cli) profileDelete() *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "Forget a profile; the cluster is not touched", Args: exactly("NAME"), RunE: func(_ *cobra.Command, args []string) error {
		return c.changeProfile(args[0], func(all *profiles) {
			delete(all.Profiles, args[0])
			if all.Current == args[0] {
				all.Current = ""
			}
		})
	}}
}

// changeProfile changes the file, in which the profile must be.
func (c *cli) changeProfile(name string, change func(*profiles)) error {
	all, err := c.readProfiles()
	if err != nil {
		return err
	}
	if _, ok := all.Profiles[name]; !ok {
		return notFound("there is no profile %q; `raftctl profile list` names them", name)
	}
	change(&all)
	return errors.Join(c.writeProfiles(all), c.showProfile(all, name))
}

func (c *cli) showProfile(all profiles, name string) error {
	return c.showValue(map[string]string{"profile": name, "current": all.Current},
		&table{columns: []string{"profile", "current is"}, rows: [][]any{{name, all.Current}}})
}
