package kafka

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// vouchers remembers by which credential each connection was let in, so that the sessions of a user end when the user is
// deleted or gets another password (X8).
type vouchers struct {
	mu   sync.Mutex
	open map[net.Conn]*metadata.ScramCredential // guarded by mu
}

func (v *vouchers) put(conn net.Conn, proof *metadata.ScramCredential) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open == nil {
		v.open = make(map[net.Conn]*metadata.ScramCredential)
	}
	v.open[conn] = proof
}

func (v *vouchers) drop(conn net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.open, conn)
}

// void returns the connections whose credential is gone or another.
func (v *vouchers) void(img *metadata.Image) []net.Conn {
	v.mu.Lock()
	defer v.mu.Unlock()
	var void []net.Conn
	for conn, proof := range v.open {
		if !stillValid(img, proof) {
			void = append(void, conn)
		}
	}
	return void
}

// stillValid reports whether what a client proved is still what the image holds.
func stillValid(img *metadata.Image, proof *metadata.ScramCredential) bool {
	present, there := img.ScramCredential(proof.CredentialKey)
	return there && present.SameSecret(proof)
}

// credentialsLook is how often credentials are looked at: a session outlives its user by no more than this, and its last
// answer.
const credentialsLook = 250 * time.Millisecond

// expel closes the connections of users who are no more, or have another password, until the server ends.
func (s *Server) expel(ctx context.Context) error {
	ticker := time.NewTicker(credentialsLook)
	defer ticker.Stop()
	var looked broker.Index
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		img := s.Metadata.Image()
		if looked == img.CredentialsIndex() {
			continue
		}
		looked = img.CredentialsIndex()
		for _, conn := range s.vouchers.void(img) {
			_ = conn.Close() // its session finds out and says so
		}
	}
}
