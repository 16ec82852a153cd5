package kafka

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/scram"
)

// Sasl is how clients prove who they are, beside certificates.
type Sasl struct {
	// Mechanisms are offered (sasl.enabled.mechanisms), of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. None: there is no SASL.
	Mechanisms []string
	// PlainWithoutTLS offers PLAIN also where the password can be read on the way.
	PlainWithoutTLS bool
	// SessionLifetime is how long a client may go on before it proves itself again (connections.max.reauth.ms, KIP-368).
	// Zero: for ever.
	SessionLifetime time.Duration
	// DecoySecret is what unknown users' salts are made with; the same for as long as the node lives.
	DecoySecret []byte
}

// The mechanisms, by the names that clients use.
const (
	MechanismPlain       = "PLAIN"
	MechanismScramSHA256 = "SCRAM-SHA-256"
	MechanismScramSHA512 = "SCRAM-SHA-512"
)

// Mechanisms are all that can be enabled.
var mechanisms = []string{MechanismPlain, MechanismScramSHA256, MechanismScramSHA512}

// Mechanisms returns the mechanisms that can be enabled.
func Mechanisms() []string { return slices.Clone(mechanisms) }

// Anonymous is the principal of a client that proved nothing.
const Anonymous = "User:ANONYMOUS"

// failedAuthenticationDelay is how long a client waits for the news that its password is wrong
// (connection.failed.authentication.delay.ms): guessing takes time.
const failedAuthenticationDelay = 100 * time.Millisecond

// authentication is where a session stands. The session's goroutine owns it.
type authentication struct {
	deadline  time.Time // by when the client must have proved itself; zero once it has
	principal string
	super     bool // the principal is a superuser
	encrypted bool // the connection is

	mechanism  string          // chosen by a handshake, proved or not
	exchange   *scram.Exchange // under way
	handshaken bool            // SaslHandshake v1 came, and the exchange is not done
	raw        bool            // SaslHandshake v0: tokens come in frames of their own
	proof      *metadata.ScramCredential
	expires    time.Time // of the session; zero: never
}

// offered lists the mechanisms that this connection may use.
func (s *session) offered() []string {
	offered := slices.Clone(s.Sasl.Mechanisms)
	if !s.encrypted && !s.Sasl.PlainWithoutTLS {
		offered = slices.DeleteFunc(offered, func(m string) bool { return m == MechanismPlain })
	}
	return offered
}

// identify makes a session's principal.
func (s *session) identify(principal string) {
	s.principal = principal
	s.super = s.Authorizer != nil && slices.Contains(s.Authorizer.SuperUsers, principal)
	s.answers = answers{}
}

// proven reports whether a connection's client has proved by SASL who it is.
func (a *authentication) proven() bool { return a.proof != nil }

// expired reports whether the client should have proved itself again.
func (a *authentication) expired(now time.Time) bool {
	return !a.expires.IsZero() && now.After(a.expires)
}

// begin takes up a mechanism, or says why not.
func (s *session) begin(mechanism string) broker.Code {
	offered := s.offered()
	switch {
	case len(s.Sasl.Mechanisms) == 0 || s.handshaken || s.raw:
		return broker.IllegalSaslState
	case !slices.Contains(offered, mechanism):
		return broker.UnsupportedSaslMechanism
	case s.proven() && mechanism != s.mechanism:
		return broker.IllegalSaslState // who comes again comes the same way
	}
	s.mechanism = mechanism
	s.exchange = nil
	if kind, ok := scramMechanism(mechanism); ok {
		s.exchange = scram.NewExchange(kind, rand.Text(), func(user string) (*metadata.ScramCredential, bool) {
			return s.credential(metadata.CredentialKey{User: user, Mechanism: kind})
		})
	}
	return broker.None
}

func scramMechanism(name string) (metadata.ScramMechanism, bool) {
	for _, kind := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
		if kind.String() == name {
			return kind, true
		}
	}
	return 0, false
}

func (s *session) credential(key metadata.CredentialKey) (*metadata.ScramCredential, bool) {
	if found, ok := s.Metadata.Image().ScramCredential(key); ok {
		return found, true
	}
	return scram.Decoy(key, s.Sasl.DecoySecret), false
}

// token takes the client's next token and returns what to answer. An error means that the client failed to prove itself:
// the connection ends behind the answer.
func (s *session) token(ctx context.Context, token []byte) ([]byte, error) {
	var answer []byte
	var proof *metadata.ScramCredential
	var err error
	if s.exchange != nil {
		var done bool
		if answer, done, err = s.exchange.Next(token); err == nil && !done {
			return answer, nil
		}
		if err == nil {
			proof = s.exchange.Credential()
		}
	} else {
		proof, err = s.plain(ctx, token)
	}
	s.exchange, s.raw = nil, false
	if err == nil {
		err = s.prove(proof)
	}
	if err != nil {
		sleep(ctx, failedAuthenticationDelay)
		s.ending = refuse("authentication", "%s: %w", s.mechanism, err)
		return nil, s.ending
	}
	return answer, nil
}

// prove makes the session that of a user who has proved to be the one.
func (s *session) prove(proof *metadata.ScramCredential) error {
	principal := "User:" + proof.User
	if s.proven() && principal != s.principal {
		return errors.New("a session stays with its user")
	}
	s.vouchers.put(s.conn, proof)
	// The credential may have been changed since it was looked up: whoever changes it either finds it in the vouchers or
	// is seen here.
	if !stillValid(s.Metadata.Image(), proof) {
		return scram.ErrRefused
	}
	s.proof, s.authenticated, s.deadline = proof, true, time.Time{}
	s.identify(principal)
	if s.Sasl.SessionLifetime > 0 {
		s.expires = time.Now().Add(s.Sasl.SessionLifetime)
	}
	return nil
}

// plain checks a PLAIN token (RFC 4616): a password in the clear, which is compared with the user's SCRAM credential. The
// work is bounded by the iterations that a credential may have, and done behind the gate.
func (s *session) plain(ctx context.Context, token []byte) (*metadata.ScramCredential, error) {
	parts := slices.Collect(splitNUL(token))
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return nil, errors.New("the token is malformed")
	}
	as, user, password := parts[0], parts[1], parts[2]
	found, known := s.credential(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA512})
	if !known {
		if other, ok := s.credential(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA256}); ok {
			found, known = other, true
		}
	}
	if s.Gate != nil {
		leave, err := s.Gate(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	matches, err := scram.Verify(found, password)
	if err == nil && (!matches || !known || as != "" && as != user) {
		err = scram.ErrRefused
	}
	return found, err
}

func splitNUL(token []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start := 0
		for i, b := range token {
			if b == 0 {
				if !yield(string(token[start:i])) {
					return
				}
				start = i + 1
			}
		}
		yield(string(token[start:]))
	}
}

// rawToken reads and answers one token of SaslHandshake v0: a size and bytes, no more. A failure has no words there: the
// connection is closed.
func (s *session) rawToken(ctx context.Context) error {
	var prefix [4]byte
	if _, err := io.ReadFull(s.reader, prefix[:]); err != nil {
		return err
	}
	size := int32(binary.BigEndian.Uint32(prefix[:]))
	if size < 0 || int(size) > s.Limits.AnonymousFrameBytesMax {
		return refuse("frame size", "a SASL token of %d bytes: at most %d are accepted", size, s.Limits.AnonymousFrameBytesMax)
	}
	token := make([]byte, size) // small enough to be taken at the client's word
	if _, err := io.ReadFull(s.reader, token); err != nil {
		return err
	}
	answer, err := s.token(ctx, token)
	if err != nil {
		return fmt.Errorf("raw SASL token: %w", err)
	}
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)
	return s.writeAll(s.conn, [][]byte{b}, len(b))
}

// CertifiedPrincipal is the principal of a client certificate: its subject in the form of RFC 2253, as in Kafka.
func CertifiedPrincipal(leaf *x509.Certificate) string {
	return "User:" + leaf.Subject.ToRDNSequence().String()
}
