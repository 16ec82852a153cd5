package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/millrace-io/millrace/broker"
)

// Codec is how the records of a batch are compressed; the numbers are those of the batch attributes.
type Codec uint8

// The codecs of Kafka's format.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

func (c Codec) known() bool { return c <= Zstd }

// String returns the name that Kafka's compression.type uses.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// DecompressedBytesMax bounds what a batch may hold decompressed where the caller sets no bound.
const DecompressedBytesMax = 128 << 20

// keptBytesMax is the largest output buffer that a Decompressor keeps for its next batch.
const keptBytesMax = 4 << 20

// Decompressor turns compressed records into plain ones, into a buffer of its own that it uses again: what it returned is
// valid until its next use. The zero value is ready. It is not safe for concurrent use.
type Decompressor struct {
	// BytesMax bounds the output of Decompress; 0 = DecompressedBytesMax.
	BytesMax int

	out     []byte
	src     bytes.Reader
	gzip    *gzip.Reader
	lz4     *lz4.Reader
	zstd    *zstd.Decoder
	zstdMax int
}

// errTooLarge is how the codecs' loops tell that the bound was passed.
var errTooLarge = errors.New("decompressed records pass the limit")

// Decompress returns the plain form of src. Errors: UnsupportedCompressionType; InvalidRecord where src is no output of
// the codec; MessageTooLarge where the plain form passes the bound, found before more than the bound is in memory.
func (d *Decompressor) Decompress(c Codec, src []byte) ([]byte, error) {
	return d.decompress(c, src, 0)
}

func (d *Decompressor) decompress(c Codec, src []byte, bytesMax int) ([]byte, error) {
	if c == None {
		return src, nil
	}
	if d == nil {
		return nil, broker.Errorf(broker.UnsupportedCompressionType, "no decompressor for %s", c)
	}
	if bytesMax <= 0 {
		bytesMax = d.BytesMax
	}
	if bytesMax <= 0 {
		bytesMax = DecompressedBytesMax
	}
	if cap(d.out) > keptBytesMax {
		d.out = nil
	}
	var err error
	switch c {
	case Gzip:
		err = d.fromGzip(src, bytesMax)
	case Snappy:
		err = d.fromSnappy(src, bytesMax)
	case LZ4:
		err = d.fromLZ4(src, bytesMax)
	case Zstd:
		err = d.fromZstd(src, bytesMax)
	default:
		return nil, broker.Errorf(broker.UnsupportedCompressionType, "unknown compression codec %d", uint8(c))
	}
	if errors.Is(err, errTooLarge) {
		return nil, broker.Errorf(broker.MessageTooLarge, "the batch's %s records decompress to more than %d bytes", c, bytesMax)
	}
	if err != nil {
		return nil, broker.Errorf(broker.InvalidRecord, "decompress %s records: %v", c, err)
	}
	return d.out, nil
}

func (d *Decompressor) fromGzip(src []byte, bytesMax int) error {
	d.src.Reset(src)
	if d.gzip == nil {
		d.gzip = new(gzip.Reader)
	}
	if err := d.gzip.Reset(&d.src); err != nil {
		return err
	}
	return d.readAll(d.gzip, bytesMax)
}

func (d *Decompressor) fromLZ4(src []byte, bytesMax int) error {
	d.src.Reset(src)
	if d.lz4 == nil {
		d.lz4 = lz4.NewReader(nil)
	}
	d.lz4.Reset(&d.src)
	err := d.readAll(d.lz4, bytesMax)
	if err != nil {
		d.lz4 = nil // a reader that met an error keeps it
	}
	return err
}

func (d *Decompressor) fromZstd(src []byte, bytesMax int) error {
	if d.zstd == nil || d.zstdMax != bytesMax {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(uint64(bytesMax)))
		if err != nil {
			return err
		}
		d.zstd, d.zstdMax = dec, bytesMax
	}
	out, err := d.zstd.DecodeAll(src, d.out[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || len(out) > bytesMax {
		return errTooLarge
	}
	d.out = out
	return err
}

// readAll fills d.out from r, up to one byte past bytesMax.
func (d *Decompressor) readAll(r io.Reader, bytesMax int) error {
	if d.out == nil {
		d.out = make([]byte, 0, 64<<10)
	}
	d.out = d.out[:0]
	for {
		if len(d.out) == cap(d.out) {
			d.out = append(d.out, 0)[:len(d.out)]
		}
		room := min(cap(d.out), bytesMax+1)
		n, err := r.Read(d.out[len(d.out):room])
		d.out = d.out[:len(d.out)+n]
		switch {
		case len(d.out) > bytesMax:
			return errTooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// xerialHeader begins what Java's snappy stream writes: magic, version 1, lowest compatible version 1. Blocks follow,
// each behind a big-endian u32 length. Clients that do not use that stream send one raw snappy block.
const xerialHeader = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"

// xerialMagicBytes is how much of the header tells the framing; the versions behind it are not judged.
const xerialMagicBytes = 8

// xerialBlockBytes is how much plain data Java's stream puts in one block.
const xerialBlockBytes = 32 << 10

func (d *Decompressor) fromSnappy(src []byte, bytesMax int) error {
	d.out = d.out[:0]
	if len(src) < len(xerialHeader) || string(src[:xerialMagicBytes]) != xerialHeader[:xerialMagicBytes] {
		return d.appendSnappy(src, bytesMax)
	}
	for src = src[len(xerialHeader):]; len(src) > 0; {
		if len(src) < 4 {
			return io.ErrUnexpectedEOF
		}
		size := uint64(binary.BigEndian.Uint32(src))
		if size > uint64(len(src)-4) {
			return io.ErrUnexpectedEOF
		}
		if err := d.appendSnappy(src[4:4+size], bytesMax); err != nil {
			return err
		}
		src = src[4+size:]
	}
	return nil
}

func (d *Decompressor) appendSnappy(block []byte, bytesMax int) error {
	size, err := snappy.DecodedLen(block)
	if err != nil {
		return err
	}
	have := len(d.out)
	if size > bytesMax-have {
		return errTooLarge
	}
	if cap(d.out)-have < size {
		grown := make([]byte, have, max(have+size, 2*cap(d.out)))
		copy(grown, d.out)
		d.out = grown
	}
	if size == 0 {
		return nil
	}
	plain, err := snappy.Decode(d.out[have:have+size], block)
	if err != nil {
		return err
	}
	d.out = d.out[:have+len(plain)]
	return nil
}
