package window

import "fmt"

// Defaults and bounds of a window's shape.
const (
	BlockBitsDefault = 16
	BlockBitsMax     = 16 // an offset in its block is a u16
	ReachDefault     = 15
	ReachMax         = 65_535 // distances are u32
)

// Geometry is the shape of a window: blocks of 2^BlockBits offsets, of which Reach whole ones and the current one are
// seen. It is part of the judge key.
type Geometry struct {
	BlockBits uint8
	Reach     uint32
}

// Default is the geometry of a binding that does not choose.
func Default() Geometry { return Geometry{BlockBits: BlockBitsDefault, Reach: ReachDefault} }

// Check refuses a shape whose offsets or distances would not fit their fields.
func (g Geometry) Check() error {
	if g.BlockBits < 1 || g.BlockBits > BlockBitsMax {
		return fmt.Errorf("window block bits %d: want 1 to %d", g.BlockBits, BlockBitsMax)
	}
	if g.Reach > ReachMax {
		return fmt.Errorf("window reach of %d blocks: want at most %d", g.Reach, ReachMax)
	}
	return nil
}

// BlockOffsets is B, the number of offsets in a block.
func (g Geometry) BlockOffsets() int64 { return 1 << g.BlockBits }

// BlockStart is the first offset of o's block.
func (g Geometry) BlockStart(o int64) int64 { return o &^ (g.BlockOffsets() - 1) }

// Floor is the lowest offset whose sighting o may repeat: the start of the block Reach blocks before its own.
func (g Geometry) Floor(o int64) int64 {
	return max(0, g.BlockStart(o)-int64(g.Reach)<<g.BlockBits)
}

// number counts blocks from offset 0.
func (g Geometry) number(o int64) int64 { return o >> g.BlockBits }
