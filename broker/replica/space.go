package replica

import (
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

const (
	// Below a fiftieth of the file system, or spaceBytesMax where that is less, clients' records are refused, so that
	// there is room for what must go on: commits, letters, modules, the metadata log, and deleting.
	spaceShare    = 50
	spaceBytesMax = 1 << 30

	// strayKept is how long a directory that no image explains is kept (RM12).
	strayKept = 24 * time.Hour
)

// noSpace is a refusal that wraps vfs.ErrNoSpace: nothing was appended, and the same append succeeds once there is room.
func noSpace(format string, args ...any) error {
	return fmt.Errorf("%w: %w", broker.Errorf(broker.StorageError, format, args...), vfs.ErrNoSpace)
}

// CheckSpace refuses or admits clients' appends by the free space of the data directory (RH21). Strays go first. It is
// called every second.
func (s *Set) CheckSpace() error {
	free, low, err := s.space()
	if err != nil {
		return err
	}
	if low {
		removed, err := s.dirs.removeStrays(s.cfg.Now())
		if err != nil {
			return err
		}
		if removed > 0 {
			s.cfg.Logger.Warn().Int("directories", removed).Msg("strays removed for want of space")
			if free, low, err = s.space(); err != nil {
				return err
			}
		}
	}
	if s.readOnly.Swap(low) == low {
		return nil
	}
	s.cfg.Hooks.Space(low)
	if low {
		s.cfg.Logger.Error().Uint64("free", free).Msg("too little space: records from clients are refused; delete topics or records, or add space")
	} else {
		s.cfg.Logger.Info().Uint64("free", free).Msg("there is space again: records from clients are taken")
	}
	return nil
}

// ReadOnly reports that clients' appends are refused for want of space.
func (s *Set) ReadOnly() bool { return s.readOnly.Load() }

func (s *Set) space() (free uint64, low bool, err error) {
	free, total, err := s.cfg.FS.Space(s.cfg.Dir)
	if err != nil {
		return 0, false, fmt.Errorf("look for space in %s: %w", s.cfg.Dir, err)
	}
	return free, free < min(total/spaceShare, spaceBytesMax), nil
}

// RemoveStrays removes the directories that were set aside a day ago.
func (s *Set) RemoveStrays() error {
	removed, err := s.dirs.removeStrays(s.cfg.Now().Add(-strayKept))
	if removed > 0 {
		s.cfg.Logger.Info().Int("directories", removed).Msg("strays removed")
	}
	return err
}
