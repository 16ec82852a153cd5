package scram

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/broker/metadata"
)

// Errors of an exchange. None of them says whether the user exists.
var (
	ErrMalformed = errors.New("the SCRAM message is malformed")
	ErrRefused   = errors.New("the user or the password is not right")
)

// Lookup returns a user's credential, and whether it is a real one: else it is a decoy.
type Lookup func(user string) (credential *metadata.ScramCredential, known bool)

// Exchange is the server's side of one authentication. Its steps are called from one goroutine; after an error, or when it
// is done, it is of no more use.
type Exchange struct {
	mechanism metadata.ScramMechanism
	nonce     string
	lookup    Lookup

	step        int
	gs2         string // the part before the first message proper; comes again, in base64, in the last one
	clientFirst string // without gs2
	serverFirst string
	credential  *metadata.ScramCredential
	known       bool
}

// NewExchange returns an exchange whose half of the nonce is nonce: at least 18 random bytes in printable form.
func NewExchange(mechanism metadata.ScramMechanism, nonce string, lookup Lookup) *Exchange {
	return &Exchange{mechanism: mechanism, nonce: nonce, lookup: lookup}
}

// Credential is what the client has proved to know; nil before the exchange is done.
func (x *Exchange) Credential() *metadata.ScramCredential {
	if x.step != 2 {
		return nil
	}
	return x.credential
}

// Next answers the client's next message. done means that the client is who it says.
func (x *Exchange) Next(message []byte) (answer []byte, done bool, err error) {
	switch x.step {
	case 0:
		answer, err = x.first(string(message))
		if err == nil {
			x.step = 1
		}
		return answer, false, err
	case 1:
		x.step = -1
		if answer, err = x.last(string(message)); err == nil {
			x.step = 2
		}
		return answer, err == nil, err
	default:
		return nil, false, fmt.Errorf("%w: the exchange has ended", ErrMalformed)
	}
}

// first takes "n,,n=USER,r=NONCE[,extensions]".
func (x *Exchange) first(message string) ([]byte, error) {
	binding, rest, _ := strings.Cut(message, ",")
	authorization, bare, found := strings.Cut(rest, ",")
	switch {
	case !found || binding != "n" && binding != "y": // "p=" asks for channel binding, which is not offered
		return nil, fmt.Errorf("%w: no channel binding is offered", ErrMalformed)
	case authorization != "" && !strings.HasPrefix(authorization, "a="):
		return nil, ErrMalformed
	}
	fields := strings.Split(bare, ",")
	if len(fields) < 2 {
		return nil, ErrMalformed
	}
	user, err := unescape(fields[0], "n=")
	if err != nil { // also a mandatory extension, "m=", which must be refused
		return nil, err
	}
	if authorization != "" {
		if as, err := unescape(authorization, "a="); err != nil || as != user {
			return nil, fmt.Errorf("%w: acting for another user is not offered", ErrRefused)
		}
	}
	nonce, found := strings.CutPrefix(fields[1], "r=")
	if !found || !printable(nonce) {
		return nil, ErrMalformed
	}
	x.gs2, x.clientFirst, x.nonce = binding+","+authorization+",", bare, nonce+x.nonce
	x.credential, x.known = x.lookup(user)
	x.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.credential.Salt), x.credential.Iterations)
	return []byte(x.serverFirst), nil
}

// last takes "c=GS2,r=NONCE[,extensions],p=PROOF".
func (x *Exchange) last(message string) ([]byte, error) {
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return nil, ErrMalformed
	}
	unproven := message[:at]
	proof, err := base64.StdEncoding.DecodeString(message[at+len(",p="):])
	if err != nil || len(proof) != x.mechanism.KeyBytes() {
		return nil, ErrMalformed
	}
	fields := strings.Split(unproven, ",")
	if len(fields) < 2 || fields[0] != "c="+base64.StdEncoding.EncodeToString([]byte(x.gs2)) {
		return nil, ErrMalformed
	}
	// The whole nonce, the broker's half included: without that a client's old messages could be sent again.
	if fields[1] != "r="+x.nonce {
		return nil, fmt.Errorf("%w: the nonce is not the one that was given", ErrRefused)
	}
	whole := []byte(x.clientFirst + "," + x.serverFirst + "," + unproven)
	clientKey := mac(x.mechanism, x.credential.StoredKey, whole)
	subtle.XORBytes(clientKey, clientKey, proof)
	matches := subtle.ConstantTimeCompare(digest(x.mechanism, clientKey), x.credential.StoredKey) == 1
	signature := mac(x.mechanism, x.credential.ServerKey, whole)
	if !matches || !x.known {
		return nil, ErrRefused
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(signature)), nil
}

// unescape reads a name, in which "=2C" is a comma and "=3D" an equals sign.
func unescape(field, prefix string) (string, error) {
	escaped, found := strings.CutPrefix(field, prefix)
	if !found || escaped == "" {
		return "", ErrMalformed
	}
	var name strings.Builder
	for {
		plain, rest, more := strings.Cut(escaped, "=")
		name.WriteString(plain)
		switch {
		case !more:
			return name.String(), nil
		case strings.HasPrefix(rest, "2C"):
			name.WriteByte(',')
		case strings.HasPrefix(rest, "3D"):
			name.WriteByte('=')
		default:
			return "", ErrMalformed
		}
		escaped = rest[2:]
	}
}

// printable reports whether a nonce is made of what RFC 5802 allows.
func printable(nonce string) bool {
	return nonce != "" && !bytes.ContainsFunc([]byte(nonce), func(r rune) bool { return r < 0x21 || r > 0x7e || r == ',' })
}
