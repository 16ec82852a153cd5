package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"

	"github.com/millrace-io/millrace/broker/metadata"
)

// IterationsDefault is how often a password is hashed where nobody says otherwise.
const IterationsDefault = 8192

// SaltBytes is the length of the salts that are made here, and of those that unknown users seem to have.
const SaltBytes = 20

func hashOf(mechanism metadata.ScramMechanism) func() hash.Hash {
	if mechanism == metadata.ScramSHA512 {
		return sha512.New
	}
	return sha256.New
}

func mac(mechanism metadata.ScramMechanism, key, message []byte) []byte {
	h := hmac.New(hashOf(mechanism), key)
	h.Write(message)
	return h.Sum(nil)
}

func digest(mechanism metadata.ScramMechanism, message []byte) []byte {
	h := hashOf(mechanism)()
	h.Write(message)
	return h.Sum(nil)
}

// Salted hashes a password as both sides do before anything else (Hi of RFC 5802). It takes milliseconds, which is its
// purpose.
func Salted(mechanism metadata.ScramMechanism, password string, salt []byte, iterations int) ([]byte, error) {
	salted, err := pbkdf2.Key(hashOf(mechanism), password, salt, iterations, mechanism.KeyBytes())
	if err != nil {
		return nil, fmt.Errorf("hash a password for %s: %w", mechanism, err)
	}
	return salted, nil
}

// Credential makes what is stored from a salted password.
func Credential(key metadata.CredentialKey, salted, salt []byte, iterations int) *metadata.ScramCredential {
	return &metadata.ScramCredential{
		CredentialKey: key, Salt: salt, Iterations: iterations,
		StoredKey: digest(key.Mechanism, mac(key.Mechanism, salted, []byte("Client Key"))),
		ServerKey: mac(key.Mechanism, salted, []byte("Server Key")),
	}
}

// Verify reports whether password is the one that c was made from. It takes as long for either answer.
func Verify(c *metadata.ScramCredential, password string) (bool, error) {
	salted, err := Salted(c.Mechanism, password, c.Salt, c.Iterations)
	if err != nil {
		return false, err
	}
	stored := digest(c.Mechanism, mac(c.Mechanism, salted, []byte("Client Key")))
	return subtle.ConstantTimeCompare(stored, c.StoredKey) == 1, nil
}

// Decoy is the credential that an unknown user seems to have: always the same for the same name, and one that no password
// gives. secret is the broker's own, so that nobody can tell a decoy by making it again.
func Decoy(key metadata.CredentialKey, secret []byte) *metadata.ScramCredential {
	draw := func(what string) []byte {
		return mac(metadata.ScramSHA512, secret, []byte(what+"\x00"+key.Mechanism.String()+"\x00"+key.User))
	}
	size := key.Mechanism.KeyBytes()
	return &metadata.ScramCredential{
		CredentialKey: key, Salt: draw("salt")[:SaltBytes], Iterations: IterationsDefault,
		StoredKey: draw("stored key")[:size], ServerKey: draw("server key")[:size],
	}
}
