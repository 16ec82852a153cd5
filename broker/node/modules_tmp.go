package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

type tmpModulesConfig struct {
	FS     vfs.FS
	Dir    string
	Logger zerolog.Logger
}

type tmpModules struct{ c tmpModulesConfig }

func newTmpModules(c tmpModulesConfig) (*tmpModules, error) { return &tmpModules{c}, nil }

func (m *tmpModules) Lead(internalLog) {}
func (m *tmpModules) Resign()          {}
func (m *tmpModules) name(d metadata.Digest) string {
	return filepath.Join(m.c.Dir, "plugins", hex.EncodeToString(d[:])+".wasm")
}
func (m *tmpModules) Put(_ context.Context, module []byte) error {
	if err := makeDurableDir(m.c.FS, filepath.Join(m.c.Dir, "plugins")); err != nil {
		return err
	}
	return replaceFile(m.c.FS, m.name(sha256.Sum256(module)), module)
}
func (m *tmpModules) Module(_ context.Context, d metadata.Digest) ([]byte, error) {
	f, err := m.c.FS.Open(m.name(d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	return b, err
}
