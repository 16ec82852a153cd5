package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/builtin"
	"github.com/millrace-io/millrace/plugins/chain"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/tck"
)

// pluginRoom is where plugins are admitted, stored, loaded and lent to chains. The engine starts when the first plugin is
// needed, so that a node without plugins carries none of its weight. It is safe for concurrent use.
type pluginRoom struct {
	node    *Node
	gate    *engine.Gate
	modules *delivery.Modules

	mu     sync.Mutex
	engine *engine.Engine            // guarded by mu; nil until needed
	loaded map[moduleKey]*lentModule // guarded by mu
	golden map[metadata.Digest]bool  // guarded by mu: reproduced by this process
	closed bool                      // guarded by mu
	use    moduleUse                 // guarded by mu
}

// moduleKey is everything that makes a loaded module what it is.
type moduleKey struct {
	metered    metadata.Digest
	projection uint16
	config     string
	configured bool
	limits     plugins.Limits
}

// moduleUse counts how often chains found their modules loaded, and what loading the others took.
type moduleUse struct {
	hits, misses uint64
	loading      time.Duration
}

// lentModule is a loaded module with the number of chains that have it.
type lentModule struct {
	module *engine.Module
	users  int
}

func newPluginRoom(n *Node) *pluginRoom {
	room := &pluginRoom{
		node: n, gate: engine.NewGate(max(1, runtime.GOMAXPROCS(0)-1)),
		loaded: map[moduleKey]*lentModule{}, golden: map[metadata.Digest]bool{},
	}
	room.modules = delivery.NewModules(n.seams.FS, n.config.Data, clusterLog{n.cluster, broker.ModulesTopic, 0})
	return room
}

// keep brings every module that the metadata refers to onto this node's disk.
func (p *pluginRoom) keep(ctx context.Context) error {
	if err := p.modules.Keep(ctx, referenced(p.node.quorum.Image())); err != nil && ctx.Err() == nil {
		p.node.logger.Warn().Err(err).Msg("not every plugin is on this disk yet; chains that need one wait for it")
	}
	return nil
}

func (p *pluginRoom) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.engine == nil {
		return nil
	}
	return p.engine.Close(context.Background())
}

// usage is what plugins take up: modules that are loaded, instances, and the bytes of their memories.
func (p *pluginRoom) usage() (modules int, instances, bytes int64, use moduleUse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine != nil {
		instances, bytes = p.engine.Usage()
	}
	return len(p.loaded), instances, bytes, p.use
}

// calls is how many frames were given to guests.
func (p *pluginRoom) calls() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		return 0
	}
	return p.engine.Calls()
}

// start returns the engine, made at the first call.
func (p *pluginRoom) start(ctx context.Context) (*engine.Engine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, broker.Errorf(broker.BrokerNotAvailable, "the node is stopping")
	}
	if p.engine != nil {
		return p.engine, nil
	}
	cache := p.node.config.Data + "/plugins/cache"
	if err := p.node.seams.FS.MkdirAll(cache); err != nil {
		return nil, fmt.Errorf("make the cache of compiled plugins: %w", err)
	}
	made, err := engine.New(context.WithoutCancel(ctx), engine.Config{CacheDir: cache, Gate: p.gate, Logger: p.node.component("engine")})
	if err != nil {
		return nil, err
	}
	p.engine = made
	return made, nil
}

// Open implements delivery.Engine: the stages of a row, for one chain.
func (p *pluginRoom) Open(ctx context.Context, row *metadata.Row) ([]chain.Stage, func(), error) {
	var stages []chain.Stage
	var keys []moduleKey
	done := func() {
		for _, key := range keys {
			p.giveBack(key)
		}
	}
	for _, s := range row.Stages {
		key := keyOf(s, row.Limits)
		module, err := p.borrow(ctx, key, s)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("plugin %s@%s: %w", s.Plugin, s.Version, err)
		}
		keys = append(keys, key)
		stages = append(stages, stage{ctx, module})
	}
	return stages, done, nil
}

func keyOf(s metadata.Stage, limits metadata.Limits) moduleKey {
	return moduleKey{s.Metered, s.Projection, string(s.Config), s.Config != nil, plugins.Limits(limits)}
}

// stage is a loaded module in a chain.
type stage struct {
	ctx    context.Context
	module *engine.Module
}

// Projection implements chain.Stage.
func (s stage) Projection() abi.Projection { return s.module.Projection() }

// Judge implements chain.Stage.
func (s stage) Judge(frame *abi.Frame, answer *abi.Answer) (uint64, error) {
	return s.module.Judge(s.ctx, frame, answer)
}

// borrow lends a module, loading it if nobody has it.
func (p *pluginRoom) borrow(ctx context.Context, key moduleKey, s metadata.Stage) (*engine.Module, error) {
	p.mu.Lock()
	if lent := p.loaded[key]; lent != nil {
		lent.users++
		p.use.hits++
		p.mu.Unlock()
		return lent.module, nil
	}
	p.use.misses++
	p.mu.Unlock()
	code, err := p.modules.Get(ctx, key.metered)
	if err != nil {
		return nil, err
	}
	if err := p.reproduce(ctx, s, code); err != nil {
		return nil, err
	}
	module, err := p.load(ctx, code, key)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if lent := p.loaded[key]; lent != nil { // Another chain was quicker.
		lent.users++
		return lent.module, module.Close(ctx)
	}
	p.loaded[key] = &lentModule{module: module, users: 1}
	return module, nil
}

func (p *pluginRoom) giveBack(key moduleKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lent := p.loaded[key]
	lent.users--
	if lent.users > 0 {
		return
	}
	delete(p.loaded, key)
	if err := lent.module.Close(context.Background()); err != nil {
		p.node.logger.Warn().Err(err).Msg("a plugin was not closed")
	}
}

func (p *pluginRoom) load(ctx context.Context, metered []byte, key moduleKey) (*engine.Module, error) {
	e, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	config := engine.StageConfig{Projection: abi.Projection(key.projection), Limits: key.limits}
	if key.configured {
		config.Config = []byte(key.config)
	}
	began := time.Now()
	module, err := e.Load(ctx, metered, config)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use.loading += time.Since(began)
	return module, err
}

// reproduce judges a version's golden frames once in this process: a broker that answers otherwise than the one that
// admitted it must not judge with it (H26).
func (p *pluginRoom) reproduce(ctx context.Context, s metadata.Stage, metered []byte) error {
	p.mu.Lock()
	known := p.golden[s.Metered]
	p.mu.Unlock()
	if known {
		return nil
	}
	version, ok := p.node.quorum.Image().Plugin(s.Plugin, s.Version)
	if !ok {
		return broker.Errorf(broker.ResourceNotFound, "the metadata does not know this version")
	}
	manifest, err := plugins.ParseManifest(version.Manifest)
	if err != nil {
		return err
	}
	module, err := p.load(ctx, metered, goldenKey(manifest, s.Metered))
	if err != nil {
		return err
	}
	var frames []engine.Golden
	for _, g := range version.Golden {
		frames = append(frames, engine.Golden(g))
	}
	if err := errors.Join(module.CheckGolden(ctx, frames), module.Close(ctx)); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.golden[s.Metered] = true
	return nil
}

// goldenKey is how a version is loaded to judge its golden frames. It is a function of the manifest, so that every
// broker does the same.
func goldenKey(m *plugins.Manifest, metered metadata.Digest) moduleKey {
	config := tck.GoldenConfig(m)
	return moduleKey{metered, uint16(m.Projection), string(config), config != nil, m.Limits()}
}

// Admit implements admin.Plugins: admission checks and metering, the manifest's cases, the conformance kit, and the golden
// frames.
func (p *pluginRoom) Admit(ctx context.Context, m *plugins.Manifest, manifestText, module []byte) (admin.Admitted, error) {
	e, err := p.start(ctx)
	if err != nil {
		return admin.Admitted{}, err
	}
	examined, err := tck.Examine(ctx, e, m, module)
	if err != nil {
		return admin.Admitted{}, err
	}
	admitted := admin.Admitted{
		MeteredModule: examined.Metered, CasesPassed: len(m.Cases),
		Version: metadata.PluginVersion{
			Name: m.Name, Version: m.Version, Given: sha256.Sum256(module), Metered: sha256.Sum256(examined.Metered),
			CostTable: examined.Info.CostTable, ABI: m.ABI, Manifest: manifestText, GivenBytes: int64(len(module)),
		},
	}
	var wrong []string
	for _, r := range examined.Cases {
		admitted.FuelMaxRecord = max(admitted.FuelMaxRecord, r.Fuel)
		if !r.Passed {
			wrong = append(wrong, fmt.Sprintf("case %q, record %d: want %s, got %s", r.Case, r.Record, r.Want, r.Got))
		}
	}
	if len(wrong) > 0 {
		return admin.Admitted{}, fmt.Errorf("its own cases fail: %s", strings.Join(wrong, "; "))
	}
	for _, golden := range examined.Golden {
		admitted.Version.Golden = append(admitted.Version.Golden, metadata.Golden(golden))
	}
	return admitted, nil
}

// Store implements admin.Plugins.
func (p *pluginRoom) Store(ctx context.Context, admitted admin.Admitted, module []byte) error {
	for _, m := range [][]byte{module, admitted.MeteredModule} {
		if _, err := p.modules.Put(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Try implements admin.Plugins.
func (p *pluginRoom) Try(ctx context.Context, s metadata.Stage, limits metadata.Limits) error {
	key := keyOf(s, limits)
	if _, err := p.borrow(ctx, key, s); err != nil {
		return err
	}
	p.giveBack(key)
	return nil
}

// Builtins implements admin.Plugins.
func (p *pluginRoom) Builtins() []admin.Builtin {
	var all []admin.Builtin
	for _, name := range builtin.Names() {
		b, err := builtin.Open(name)
		if err != nil {
			p.node.logger.Error().Err(err).Msg("a built-in plugin is broken")
			continue
		}
		all = append(all, admin.Builtin{Manifest: b.Manifest, ManifestText: b.ManifestSource, Module: b.Module})
	}
	return all
}

// enterGate implements kafka.Gate.
func (p *pluginRoom) enterGate(ctx context.Context) (leave func(), err error) {
	place, err := p.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	return place.Leave, nil
}
