package node

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/scram"
)

// adminAccess stands before the admin listener's pages and calls where there is an authorizer: otherwise the admin API
// would be a way around the access rules. What only looks takes Describe on the cluster, everything else Alter; probes and
// metrics do not come here (adminFace). Who asks is told by a client certificate, or by user and password, which are compared with the user's
// SCRAM credential.
type adminAccess struct {
	next       http.Handler
	authorizer *kafka.Authorizer
	image      func() *metadata.Image
	gate       func(context.Context) (leave func(), err error)
	decoy      []byte // secret of the credentials that unknown users seem to have
	key        []byte // of the digests in known

	mu    sync.Mutex
	known map[string]knownPassword // by user; guarded by mu
}

// knownPassword spares the next request the work of the last: a digest of the password that proved a credential.
type knownPassword struct {
	digest []byte
	proved *metadata.ScramCredential
}

// knownPasswordsMax bounds what is remembered.
const knownPasswordsMax = 1024

// guardAdmin puts the access rules before handler, if they are applied.
func (n *Node) guardAdmin(handler http.Handler, decoy []byte) http.Handler {
	authorizer := n.authorizer()
	if authorizer == nil {
		return handler
	}
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return &adminAccess{
		next: handler, authorizer: authorizer, image: n.quorum.Image, gate: n.plugins.enterGate, decoy: decoy, key: key,
		known: map[string]knownPassword{},
	}
}

// ServeHTTP implements http.Handler.
func (a *adminAccess) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, _ := adminNeed(r.URL.Path)
	principal, ok := a.principal(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="millrace", charset="UTF-8"`)
		refuseAdmin(w, http.StatusUnauthorized, "unauthenticated", "the user or the password is not right")
		return
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	allowed := slices.Contains(a.authorizer.SuperUsers, principal) || a.authorizer.Permits(a.image().Access(metadata.Question{
		Principal: principal, Host: host, Operation: operation, Resource: metadata.AccessCluster, Name: metadata.ClusterName,
	}))
	switch {
	case allowed:
		a.next.ServeHTTP(w, r)
	case principal == kafka.Anonymous:
		w.Header().Set("WWW-Authenticate", `Basic realm="millrace", charset="UTF-8"`)
		refuseAdmin(w, http.StatusUnauthorized, "unauthenticated", "this takes a user: raftctl has --user and --password-file")
	default:
		refuseAdmin(w, http.StatusForbidden, "permission_denied", fmt.Sprintf("%s may not do this: it takes %s on the cluster", principal,
			map[metadata.Operation]string{metadata.OperationDescribe: "describe", metadata.OperationAlter: "alter"}[operation]))
	}
}

// adminNeed tells what a path takes on the cluster.
func adminNeed(path string) (operation metadata.Operation, open bool) {
	if slices.Contains([]string{"/metrics", "/livez", "/readyz"}, path) {
		return 0, true
	}
	if !strings.HasPrefix(path, "/millrace.admin.") {
		return metadata.OperationDescribe, false
	}
	method := path[strings.LastIndexByte(path, '/')+1:]
	for _, looks := range []string{"Get", "List", "Describe"} {
		if strings.HasPrefix(method, looks) {
			return metadata.OperationDescribe, false
		}
	}
	return metadata.OperationAlter, false
}

// principal tells who asks; ok is false for a password that is not right.
func (a *adminAccess) principal(r *http.Request) (principal string, ok bool) {
	if user, password, given := r.BasicAuth(); given {
		if r.TLS == nil && !isLoopback(r.RemoteAddr) {
			return "", false // it could be read on the way
		}
		return "User:" + user, a.verify(r.Context(), user, password)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return kafka.CertifiedPrincipal(r.TLS.VerifiedChains[0][0]), true
	}
	return kafka.Anonymous, true
}

// verify compares a password with the user's credential, or with what it proved before.
func (a *adminAccess) verify(ctx context.Context, user, password string) bool {
	credential, exists := a.image().ScramCredential(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA512})
	if !exists {
		credential, exists = a.image().ScramCredential(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA256})
	}
	if !exists {
		credential = scram.Decoy(metadata.CredentialKey{User: user, Mechanism: metadata.ScramSHA512}, a.decoy)
	}
	h := hmac.New(sha256.New, a.key)
	h.Write([]byte(password))
	digest := h.Sum(nil)
	a.mu.Lock()
	before := a.known[user]
	a.mu.Unlock()
	if exists && before.proved.SameSecret(credential) && hmac.Equal(before.digest, digest) {
		return true
	}
	leave, err := a.gate(ctx)
	if err != nil {
		return false
	}
	matches, err := scram.Verify(credential, password)
	leave()
	if err != nil || !matches || !exists {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= knownPasswordsMax {
		clear(a.known)
	}
	a.known[user] = knownPassword{digest: digest, proved: credential}
	return true
}

// refuseAdmin answers as Connect does, so that its clients show the sentence.
func refuseAdmin(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A client that is gone does not hear it.
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": message})
}
