package engine

import (
	"context"

	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/chain"
)

// Stage is the module as a stage of a chain, for judging under ctx.
func (m *Module) Stage(ctx context.Context) chain.Stage { return stage{m, ctx} }

// stage binds a context, which a pure core does not know.
type stage struct {
	*Module
	ctx context.Context //nolint:containedctx // lives as long as one pass over a partition
}

func (s stage) Judge(frame *abi.Frame, answer *abi.Answer) (uint64, error) {
	return s.Module.Judge(s.ctx, frame, answer)
}
