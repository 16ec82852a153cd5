package metadata

import (
	"bytes"
	"cmp"

	"github.com/millrace-io/millrace/broker"
)

// ScramMechanism is a variant of SCRAM (RFC 5802, RFC 7677); the numbers are Kafka's and on disk.
type ScramMechanism uint8

// The mechanisms.
const (
	ScramSHA256 ScramMechanism = 1
	ScramSHA512 ScramMechanism = 2
)

// String returns the name that clients use.
func (m ScramMechanism) String() string {
	switch m {
	case ScramSHA256:
		return "SCRAM-SHA-256"
	case ScramSHA512:
		return "SCRAM-SHA-512"
	}
	return "unknown"
}

// KeyBytes is the length of a credential's keys, or 0 for an unknown mechanism.
func (m ScramMechanism) KeyBytes() int {
	switch m {
	case ScramSHA256:
		return 32
	case ScramSHA512:
		return 64
	}
	return 0
}

// CredentialKey names a credential: a user has at most one under each mechanism.
type CredentialKey struct {
	User      string
	Mechanism ScramMechanism
}

// ScramCredential proves that a client knows a user's password. The password cannot be had from it, but who knows the
// server key can pretend to be the broker, so it is never shown.
type ScramCredential struct {
	CredentialKey
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// SameSecret reports whether two credentials are one and the same: neither the password nor its salt was set anew.
func (c *ScramCredential) SameSecret(other *ScramCredential) bool {
	return c == other || c != nil && other != nil && bytes.Equal(c.StoredKey, other.StoredKey) && bytes.Equal(c.Salt, other.Salt)
}

// ScramCredential returns a user's credential under a mechanism.
func (m *Image) ScramCredential(key CredentialKey) (*ScramCredential, bool) {
	return m.credentials.find(key)
}

// ScramCredentials returns every credential by user, then mechanism.
func (m *Image) ScramCredentials() []*ScramCredential {
	return m.credentials.values(func(a, b CredentialKey) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Mechanism, b.Mechanism))
	})
}

// CredentialsIndex is the index of the entry that changed a credential last.
func (m *Image) CredentialsIndex() broker.Index { return m.credentialsIndex }
