package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Config of an engine. The zero value of what is optional works.
type Config struct {
	CacheDir string // of compiled code, shared by all modules; empty keeps it in memory
	Gate     *Gate  // required
	Logger   zerolog.Logger
	IdleMax  int // instances that a module keeps at rest; below 1: one for each place of the gate
}

// Engine compiles and runs modules. It is safe for concurrent use.
type Engine struct {
	gate    *Gate
	logger  zerolog.Logger
	idleMax int
	pager   *pager // nil where images are copied whole
	runtime wazero.Runtime
	cache   wazero.CompilationCache

	calls     atomic.Uint64
	compiling sync.Mutex // held while compiling: one at a time (W5), since that cannot be cut short
}

// New returns an engine. ctx is for the host's own modules only.
func New(ctx context.Context, c Config) (*Engine, error) {
	if c.Gate == nil {
		return nil, errors.New("an engine needs the CPU gate")
	}
	cache := wazero.NewCompilationCache()
	if c.CacheDir != "" {
		var err error
		if cache, err = wazero.NewCompilationCacheWithDir(c.CacheDir); err != nil {
			return nil, fmt.Errorf("open the cache of compiled code in %s: %w", c.CacheDir, err)
		}
	}
	e := &Engine{gate: c.Gate, logger: c.Logger, idleMax: c.IdleMax, cache: cache, pager: newPager()}
	if e.idleMax < 1 {
		e.idleMax = c.Gate.places
	}
	// Never WithCloseOnContextDone: it leaves compiled code at every loop head. Fuel ends guests.
	e.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(plugins.DefaultLimits().MemoryBytesMax/plugins.PageBytes).
		WithCompilationCache(cache))
	if err := e.addHost(ctx); err != nil {
		return nil, errors.Join(err, e.Close(ctx))
	}
	return e, nil
}

// Calls is how many frames were given to guests so far: one call of millrace_process each.
func (e *Engine) Calls() uint64 { return e.calls.Load() }

// Close frees the runtime and all it holds.
func (e *Engine) Close(ctx context.Context) error {
	err := errors.Join(e.runtime.Close(ctx), e.cache.Close(ctx))
	if e.pager != nil {
		err = errors.Join(err, e.pager.close())
	}
	return err
}

// StageConfig is what beside the module decides what a guest answers, and where its output goes.
type StageConfig struct {
	Projection abi.Projection
	Config     []byte // given to millrace_configure; nil is `{}`
	Limits     plugins.Limits
	Log        func(output []byte) // optional: what the guest printed over a frame; not to be kept, must not block
}

// LoadError is a module that does not come up: its start function, _initialize or millrace_configure failed, or the
// configuration is refused. It will not come up anywhere else either.
type LoadError struct {
	Step   string
	Text   string
	Stderr []byte
}

func (e *LoadError) Error() string {
	text := e.Step + ": " + e.Text
	if len(e.Stderr) > 0 {
		text += "; it printed: " + string(e.Stderr)
	}
	return text
}

// Load compiles a metered module, brings it up once and takes the image that every frame begins from. An error is a
// *LoadError, or trouble of the broker's.
func (e *Engine) Load(ctx context.Context, metered []byte, c StageConfig) (*Module, error) {
	if err := c.Limits.Check(); err != nil {
		return nil, fmt.Errorf("load a module: %w", err)
	}
	compiled, err := e.compile(ctx, metered)
	if err != nil {
		return nil, &LoadError{Step: "compile", Text: err.Error()}
	}
	m := &Module{engine: e, compiled: compiled, config: c}
	if m.config.Config == nil {
		m.config.Config = []byte("{}")
	}
	if err := m.bringUp(ctx, c.Config != nil); err != nil {
		return nil, errors.Join(err, compiled.Close(ctx))
	}
	return m, nil
}

func (e *Engine) compile(ctx context.Context, metered []byte) (wazero.CompiledModule, error) {
	e.compiling.Lock()
	defer e.compiling.Unlock()
	return e.runtime.CompileModule(ctx, metered)
}
