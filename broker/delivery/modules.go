package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// moduleChunkBytes is the largest piece of a module in one record of the modules topic.
const moduleChunkBytes = 512 << 10

// moduleBytesMax bounds what Get puts together; admission refuses larger modules long before.
const moduleBytesMax = 64 << 20

// moduleKeyMagic begins the key of a chunk: magic[4] SHA-256[32] index:u32 count:u32, little-endian.
const (
	moduleKeyMagic = "MRM1"
	moduleKeyBytes = 4 + sha256.Size + 4 + 4
)

// Modules keeps plugin modules, as given and as metered, by SHA-256: in chunks on the internal topic that every broker
// reads, and as files plugins/<sha256>.wasm. A module's bytes never change, so it is safe for concurrent use.
type Modules struct {
	fs  vfs.FS
	dir string // plugins/ in the data directory
	log Log

	saving sync.Mutex // all partitions of a topic may miss the same module at once
}

// NewModules returns the store over a partition and a data directory.
func NewModules(fsys vfs.FS, dataDir string, log Log) *Modules {
	return &Modules{fs: fsys, dir: dataDir + "/plugins", log: log}
}

// Put makes a module durable on the topic, then on this disk, and returns its digest. A module that is there already
// is not written again.
func (m *Modules) Put(ctx context.Context, module []byte) (metadata.Digest, error) {
	digest := metadata.Digest(sha256.Sum256(module))
	if len(module) == 0 || len(module) > moduleBytesMax {
		return digest, broker.Errorf(broker.InvalidRequest, "a module of %d bytes; 1 to %d are allowed", len(module), moduleBytesMax)
	}
	if _, err := m.cached(digest); err == nil {
		return digest, nil
	}
	chunks := slices.Collect(slices.Chunk(module, moduleChunkBytes))
	for i, chunk := range chunks {
		b := batch.NewBuilder(batch.Spec{BaseTimestamp: time.Now().UnixMilli()})
		if err := b.Append(batch.Record{Key: moduleKey(digest, i, len(chunks)), Value: chunk}); err != nil {
			return digest, fmt.Errorf("store module %x: %w", digest, err)
		}
		raw, err := b.Finish()
		if err == nil {
			err = m.log.Append(ctx, raw)
		}
		if err != nil {
			return digest, fmt.Errorf("store chunk %d of module %x: %w", i, digest, err)
		}
	}
	return digest, m.save(digest, module)
}

func moduleKey(digest metadata.Digest, index, count int) []byte {
	key := append([]byte(moduleKeyMagic), digest[:]...)
	key = binary.LittleEndian.AppendUint32(key, uint32(index))
	return binary.LittleEndian.AppendUint32(key, uint32(count))
}

func (m *Modules) file(digest metadata.Digest) string {
	return m.dir + "/" + hex.EncodeToString(digest[:]) + ".wasm"
}

func (m *Modules) save(digest metadata.Digest, module []byte) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if _, err := m.cached(digest); err == nil {
		return nil
	}
	if err := m.fs.MkdirAll(m.dir); err != nil {
		return fmt.Errorf("make %s: %w", m.dir, err)
	}
	if err := replaceFile(m.fs, m.dir, m.file(digest), module); err != nil {
		return fmt.Errorf("write %s: %w", m.file(digest), err)
	}
	return nil
}

// cached returns a module from this disk, if its bytes are those of its name.
func (m *Modules) cached(digest metadata.Digest) ([]byte, error) {
	module, err := readFile(m.fs, m.file(digest))
	if err == nil && sha256.Sum256(module) != digest {
		err = fmt.Errorf("%s: its bytes are not those of its name", m.file(digest))
	}
	return module, err
}

// Get returns a module's bytes: from this disk, else from the topic, and then it is kept on disk. The error is
// broker.ResourceNotFound if the topic does not have it whole; like any other it is the broker's trouble.
func (m *Modules) Get(ctx context.Context, digest metadata.Digest) ([]byte, error) {
	module, err := m.cached(digest)
	if err == nil {
		return module, nil
	}
	found, err := m.scan(ctx, []metadata.Digest{digest})
	if err != nil {
		return nil, err
	}
	if module = found[digest]; module == nil {
		return nil, broker.Errorf(broker.ResourceNotFound, "module %x is not on topic %s", digest, broker.ModulesTopic)
	}
	return module, nil
}

// Keep brings every referenced module to this disk and removes the files of all others.
func (m *Modules) Keep(ctx context.Context, referenced []metadata.Digest) error {
	var missing []metadata.Digest
	names := map[string]bool{}
	for _, digest := range referenced {
		names[hex.EncodeToString(digest[:])+".wasm"] = true
		if _, err := m.cached(digest); err != nil {
			missing = append(missing, digest)
		}
	}
	if len(missing) > 0 {
		found, err := m.scan(ctx, missing)
		if err != nil {
			return err
		}
		if len(found) < len(missing) {
			return broker.Errorf(broker.ResourceNotFound, "%d of %d modules are not on topic %s yet", len(missing)-len(found), len(missing), broker.ModulesTopic)
		}
	}
	present, err := m.fs.List(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range present {
		if strings.HasSuffix(name, ".wasm") && !names[name] {
			err = errors.Join(err, m.fs.Remove(m.dir+"/"+name))
		}
	}
	return err
}

// scan reads the topic for modules and saves those that it finds whole.
func (m *Modules) scan(ctx context.Context, wanted []metadata.Digest) (map[metadata.Digest][]byte, error) {
	c := collector{store: m, wanted: wanted, parts: map[metadata.Digest]map[uint32][]byte{}, found: map[metadata.Digest][]byte{}}
	for raw, err := range m.log.Batches(ctx) {
		if err == nil {
			err = c.batch(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("read topic %s: %w", broker.ModulesTopic, err)
		}
	}
	return c.found, nil
}

// collector puts modules together from chunks in any order.
type collector struct {
	store  *Modules
	wanted []metadata.Digest
	parts  map[metadata.Digest]map[uint32][]byte
	found  map[metadata.Digest][]byte
}

func (c *collector) batch(raw []byte) error {
	v, err := batch.Parse(raw)
	if err != nil {
		return err
	}
	records, err := v.Records(new(batch.Decompressor))
	if err != nil {
		return err
	}
	var r batch.Record
	for records.Next(&r) {
		if len(r.Key) != moduleKeyBytes || string(r.Key[:4]) != moduleKeyMagic {
			continue
		}
		if err := c.chunk(r.Key[4:], r.Value); err != nil {
			return err
		}
	}
	return records.Err()
}

func (c *collector) chunk(key, value []byte) error {
	digest := metadata.Digest(key[:sha256.Size])
	if !slices.Contains(c.wanted, digest) || c.found[digest] != nil {
		return nil
	}
	index, count := binary.LittleEndian.Uint32(key[sha256.Size:]), binary.LittleEndian.Uint32(key[sha256.Size+4:])
	if c.parts[digest] == nil {
		c.parts[digest] = map[uint32][]byte{}
	}
	c.parts[digest][index] = bytes.Clone(value)
	module := join(c.parts[digest], count)
	if module == nil || sha256.Sum256(module) != digest {
		return nil
	}
	c.found[digest] = module
	return c.store.save(digest, module)
}

// join puts a module together; nil while a chunk is missing.
func join(parts map[uint32][]byte, count uint32) []byte {
	if uint32(len(parts)) < count || count > moduleBytesMax/moduleChunkBytes {
		return nil
	}
	var module []byte
	for i := range count {
		part, there := parts[i]
		if !there {
			return nil
		}
		module = append(module, part...)
	}
	return module
}
