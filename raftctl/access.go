package raftctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/sdk"
)

// access is how raftctl proves to a cluster who it is.
type access struct {
	tls          bool // TCP with TLS
	user         string
	password     string // of the environment, the file or the profile; never of a flag, which others can see
	passwordFile string
	mechanism    string
	cert, key    string
}

func (a *access) flags(flags *pflag.FlagSet) {
	flags.BoolVar(&a.tls, "tls", false, "produce and consume over TCP with TLS instead of QUIC")
	flags.StringVar(&a.user, "user", "", "user to authenticate as")
	flags.StringVar(&a.passwordFile, "password-file", "", "file that begins with the user's password (or MILLRACE_PASSWORD)")
	flags.StringVar(&a.mechanism, "sasl-mechanism", "", "SCRAM-SHA-512 (the default), SCRAM-SHA-256 or PLAIN")
	flags.StringVar(&a.cert, "tls-cert", "", "client certificate (PEM)")
	flags.StringVar(&a.key, "tls-key", "", "key of the client certificate (PEM)")
}

// fill takes from a profile what nothing else said. A password goes with its user.
func (a *access) fill(p profile) {
	a.tls = a.tls || p.TLS
	a.mechanism = orElse(a.mechanism, p.Mechanism)
	if a.user == "" {
		a.user = p.User
		a.password = orElse(a.password, p.Password)
	}
	if a.cert == "" {
		a.cert, a.key = p.TLSCert, p.TLSKey
	}
}

// keep puts what flags and environment said into a profile.
func (a *access) keep(p *profile) error {
	if err := a.readPassword(); err != nil {
		return err
	}
	p.TLS, p.User, p.Password, p.Mechanism = a.tls, a.user, a.password, a.mechanism
	for _, file := range []struct {
		from string
		to   *string
	}{{a.cert, &p.TLSCert}, {a.key, &p.TLSKey}} {
		if file.from == "" {
			continue
		}
		var err error
		if *file.to, err = filepath.Abs(file.from); err != nil {
			return err
		}
	}
	return nil
}

func (a *access) readPassword() error {
	if a.passwordFile == "" {
		return nil
	}
	raw, err := os.ReadFile(a.passwordFile)
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	a.password = firstLine(string(raw))
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r")
}

// proof returns the options by which the SDK authenticates, and encrypts where the connection is encrypted.
func (c *cli) proof(encrypted bool) ([]sdk.Option, error) {
	var opts []sdk.Option
	if c.caFile != "" && encrypted {
		opts = append(opts, sdk.WithCAFile(c.caFile))
	}
	if (c.access.cert == "") != (c.access.key == "") {
		return nil, usageError("--tls-cert and --tls-key come together")
	}
	if c.access.cert != "" && encrypted {
		opts = append(opts, sdk.WithClientCertificate(c.access.cert, c.access.key))
	}
	if c.access.user == "" {
		return opts, nil
	}
	if err := c.access.readPassword(); err != nil {
		return nil, err
	}
	if c.access.password == "" {
		return nil, usageError("user %s needs a password: --password-file FILE, or MILLRACE_PASSWORD", c.access.user)
	}
	opts = append(opts, sdk.WithUser(c.access.user, c.access.password))
	if c.access.mechanism != "" {
		opts = append(opts, sdk.WithMechanism(sdk.Mechanism(c.access.mechanism)))
	}
	return opts, nil
}
