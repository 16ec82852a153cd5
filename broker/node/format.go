package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/broker/scram"
	"github.com/millrace-io/millrace/internal/vfs"
)

// lockName is held while a process uses the directory.
const lockName = "LOCK"

// FormatSpec says what init makes.
type FormatSpec struct {
	Data  string
	Node  broker.NodeID
	Hosts []string // names and addresses that the node's certificate is good for, beside loopback
	Now   time.Time
	User  string // the first user, who can then make others; empty: none
	// Password is that user's.
	Password string
}

// Format founds a cluster of one node in an empty directory: it draws the cluster id, makes the certificates, writes the
// first metadata snapshot, and last node.meta, whose presence says that all of it is there (RC14).
func Format(files vfs.FS, spec FormatSpec) (Identity, error) {
	if spec.Node < 0 {
		return Identity{}, fmt.Errorf("node id %d: give a number from 0 up", spec.Node)
	}
	id := Identity{Node: spec.Node, Raft: quorum.FirstRaftID}
	if _, err := rand.Read(id.Cluster[:]); err != nil {
		return id, err
	}
	if _, err := rand.Read(id.Directory[:]); err != nil {
		return id, err
	}
	if err := makeDurableDir(files, spec.Data); err != nil {
		return id, fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := files.Lock(filepath.Join(spec.Data, lockName))
	if err != nil {
		return id, fmt.Errorf("data directory %s: %w", spec.Data, err)
	}
	err = format(files, spec, id)
	return id, errors.Join(err, lock.Close())
}

func format(files vfs.FS, spec FormatSpec, id Identity) error {
	if err := checkUnused(files, spec.Data); err != nil {
		return err
	}
	if err := makeCertificates(files, spec.Data, id, spec.Hosts, spec.Now); err != nil {
		return err
	}
	first := quorum.InitSpec{Cluster: id.Cluster, Node: id.Node, Directory: id.Directory}
	if spec.User != "" {
		var err error
		if first.Facts, err = firstUser(spec.User, spec.Password); err != nil {
			return fmt.Errorf("make user %s: %w", spec.User, err)
		}
	}
	if err := quorum.Format(files, spec.Data, first); err != nil {
		return fmt.Errorf("write the first metadata snapshot: %w", err)
	}
	return replaceFile(files, filepath.Join(spec.Data, metaName), id.encode())
}

// firstUser states the credentials of a user under every mechanism.
func firstUser(name, password string) ([]*metadata.Fact, error) {
	if password == "" {
		return nil, errors.New("the password is empty")
	}
	var facts []*metadata.Fact
	for _, mechanism := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
		salt := make([]byte, scram.SaltBytes)
		if _, err := rand.Read(salt); err != nil {
			return nil, err
		}
		salted, err := scram.Salted(mechanism, password, salt, scram.IterationsDefault)
		if err != nil {
			return nil, err
		}
		key := metadata.CredentialKey{User: name, Mechanism: mechanism}
		facts = append(facts, metadata.ScramCredentialFact(scram.Credential(key, salted, salt, scram.IterationsDefault)))
	}
	return facts, nil
}

// makeDurableDir makes a directory with its parents and syncs the names of all that were made. The directory's own name is
// synced in any case: an earlier init may have been broken off.
func makeDurableDir(files vfs.FS, dir string) error {
	made := []string{dir}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		_, err := files.Stat(at)
		if err == nil || at == filepath.Dir(at) {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, at)
	}
	if err := files.MkdirAll(dir); err != nil {
		return err
	}
	for _, name := range made {
		if err := files.SyncDir(filepath.Dir(name)); err != nil {
			return fmt.Errorf("sync %s: %w", filepath.Dir(name), err)
		}
	}
	return nil
}

// checkEmpty refuses a directory with anything in it that an earlier, broken-off init did not leave.
func checkEmpty(dir string, names []string) error {
	ours := map[string]bool{lockName: true, "tls": true, "raft": true, metaName + ".tmp": true}
	for _, name := range names {
		if !ours[name] {
			return fmt.Errorf("%s is not empty (it holds %s): name an empty directory for the new node", dir, name)
		}
	}
	return nil
}

// hostOf returns the host of an advertised or bound address.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}

// EnsureFormatted formats a node's directory unless it holds a node already.
func EnsureFormatted(files vfs.FS, config Config, now time.Time) error {
	if err := config.validate(); err != nil {
		return err
	}
	_, err := ReadIdentity(files, config.Data)
	if !errors.Is(err, ErrNotFormatted) {
		return err
	}
	hosts := []string{hostOf(config.Client.Advertise), hostOf(config.Client.Bind)}
	_, err = Format(files, FormatSpec{Data: config.Data, Node: config.NodeID, Hosts: hosts, Now: now})
	return err
}
