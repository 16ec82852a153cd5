package scram

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker/metadata"
)

// The exchange of RFC 7677 section 3.
const (
	rfcClientNonce = "rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcFirst       = "n,,n=user,r=" + rfcClientNonce
	rfcLast        = "c=biws,r=" + rfcClientNonce + rfcServerNonce
	rfcProof       = ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)

func stored(t *testing.T, mechanism metadata.ScramMechanism, user, password string, salt []byte) *metadata.ScramCredential {
	t.Helper()
	salted, err := Salted(mechanism, password, salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return Credential(metadata.CredentialKey{User: user, Mechanism: mechanism}, salted, salt, 4096)
}

func rfcExchange(t *testing.T) *Exchange {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	c := stored(t, metadata.ScramSHA256, "user", "pencil", salt)
	return NewExchange(metadata.ScramSHA256, rfcServerNonce, func(user string) (*metadata.ScramCredential, bool) {
		if user != "user" {
			return Decoy(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA256}, []byte("secret")), false
		}
		return c, true
	})
}

func TestTheExchangeIsThatOfTheRFC(t *testing.T) {
	x := rfcExchange(t)
	first, done, err := x.Next([]byte(rfcFirst))
	if want := "r=" + rfcClientNonce + rfcServerNonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; string(first) != want || done || err != nil {
		t.Fatalf("%q, %v, %v; want %q", first, done, err, want)
	}
	if x.Credential() != nil {
		t.Error("a credential before the proof")
	}
	last, done, err := x.Next([]byte(rfcLast + rfcProof))
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; string(last) != want || !done || err != nil {
		t.Fatalf("%q, %v, %v; want %q", last, done, err, want)
	}
	if c := x.Credential(); c == nil || c.User != "user" {
		t.Errorf("credential %+v", c)
	}
	if _, _, err := x.Next([]byte(rfcLast + rfcProof)); err == nil {
		t.Error("an exchange that is done goes on")
	}
}

func TestMalformedAndForgedMessagesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name, first, last string
		refused           bool // rather than malformed
	}{
		{"no messages", "", "", false},
		{"channel binding", "p=tls-unique,,n=user,r=x", "", false},
		{"mandatory extension", "n,,m=ext,n=user,r=x", "", false},
		{"no nonce", "n,,n=user", "", false},
		{"empty nonce", "n,,n=user,r=", "", false},
		{"unprintable nonce", "n,,n=user,r=a\x00b", "", false},
		{"empty user", "n,,n=,r=x", "", false},
		{"half an escape", "n,,n=us=2er,r=x", "", false},
		{"another user's rights", "n,a=root,n=user,r=x", "", true},
		{"no proof", rfcFirst, rfcLast, false},
		{"short proof", rfcFirst, rfcLast + ",p=AAAA", false},
		{"proof that is not base64", rfcFirst, rfcLast + ",p=????", false},
		{"wrong proof", rfcFirst, rfcLast + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), true},
		{"the client's half of the nonce alone", rfcFirst, "c=biws,r=" + rfcClientNonce + rfcProof, true},
		{"another nonce", rfcFirst, "c=biws,r=" + rfcClientNonce + "x" + rfcProof, true},
		{"another header", rfcFirst, "c=eSws,r=" + rfcClientNonce + rfcServerNonce + rfcProof, false},
	} {
		x := rfcExchange(t)
		_, done, err := x.Next([]byte(tc.first))
		if tc.last != "" && err == nil {
			_, done, err = x.Next([]byte(tc.last))
		}
		if want := map[bool]error{true: ErrRefused, false: ErrMalformed}[tc.refused]; done || !errors.Is(err, want) {
			t.Errorf("%s: done %v, %v; want %v", tc.name, done, err, want)
		}
		if x.Credential() != nil {
			t.Errorf("%s: left a credential", tc.name)
		}
	}
}

// TestX7UnknownUsersLookLikeKnownOnes compares what a stranger sees of users who exist with what it sees of others.
func TestX7UnknownUsersLookLikeKnownOnes(t *testing.T) {
	first := func(user string) string {
		answer, _, err := rfcExchange(t).Next([]byte("n,,n=" + user + ",r=x"))
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	if before, after := first("nobody"), first("nobody"); before != after {
		t.Error("the salt of an unknown user changes")
	}
	if first("nobody") == first("noone") {
		t.Error("unknown users share a salt")
	}
	_, salt, _ := strings.Cut(first("nobody"), ",s=")
	salt, _, _ = strings.Cut(salt, ",")
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || len(raw) != SaltBytes {
		t.Errorf("salt %q", salt)
	}
	// Even who guesses the decoy's keys gets no further: a client that proves them is refused.
	secret := []byte("secret")
	decoy := Decoy(metadata.CredentialKey{User: "nobody", Mechanism: metadata.ScramSHA256}, secret)
	if other := Decoy(metadata.CredentialKey{User: "nobody", Mechanism: metadata.ScramSHA512}, secret); bytes.Equal(other.Salt, decoy.Salt) {
		t.Error("mechanisms share a salt")
	}
}

func TestPasswordsAreVerified(t *testing.T) {
	for _, mechanism := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
		c := stored(t, mechanism, "user", "pencil", []byte("salt and pepper"))
		for password, want := range map[string]bool{"pencil": true, "pencils": false, "": false} {
			if got, err := Verify(c, password); got != want || err != nil {
				t.Errorf("%s %q: %v, %v", mechanism, password, got, err)
			}
		}
	}
}

// TestNamesMayHoldAnything goes through the escapes.
func TestNamesMayHoldAnything(t *testing.T) {
	for escaped, want := range map[string]string{"a=2Cb": "a,b", "=3D=2C": "=,", "plain": "plain", "ü=3D": "ü="} {
		if got, err := unescape("n="+escaped, "n="); got != want || err != nil {
			t.Errorf("%q: %q, %v", escaped, got, err)
		}
	}
}

func FuzzExchangeNeverPanicsNorLetsIn(f *testing.F) {
	f.Add(rfcFirst, rfcLast+rfcProof[:len(rfcProof)-4]+"AAA=")
	f.Add("n,a=user,n=user,r=x", "c=,r=,p=")
	f.Fuzz(func(t *testing.T, first, last string) {
		c := &metadata.ScramCredential{Salt: []byte("salt"), Iterations: 4096, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)}
		x := NewExchange(metadata.ScramSHA256, "server", func(string) (*metadata.ScramCredential, bool) { return c, true })
		if _, _, err := x.Next([]byte(first)); err != nil {
			return
		}
		if _, done, _ := x.Next([]byte(last)); done {
			t.Fatalf("%q and %q proved a key that nobody has", first, last)
		}
	})
}
