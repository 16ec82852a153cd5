package batch

import (
	"bytes"
	"encoding/binary"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/millrace-io/millrace/broker"
)

// Compressor compresses records as Kafka's clients expect to find them: gzip, snappy in Java's stream framing, lz4 frames
// of independent 64 KiB blocks, zstd frames. The zero value is ready. It is not safe for concurrent use.
type Compressor struct {
	buf  bytes.Buffer
	gzip *gzip.Writer
	lz4  *lz4.Writer
	zstd *zstd.Encoder
	one  []byte
}

// Append appends the compressed form of src to dst.
func (c *Compressor) Append(dst []byte, codec Codec, src []byte) ([]byte, error) {
	switch codec {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return c.appendGzip(dst, src)
	case Snappy:
		return c.appendSnappy(dst, src), nil
	case LZ4:
		return c.appendLZ4(dst, src)
	case Zstd:
		if c.zstd == nil {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return nil, err
			}
			c.zstd = enc
		}
		return c.zstd.EncodeAll(src, dst), nil
	}
	return nil, broker.Errorf(broker.UnsupportedCompressionType, "unknown compression codec %d", uint8(codec))
}

func (c *Compressor) appendGzip(dst, src []byte) ([]byte, error) {
	c.buf.Reset()
	if c.gzip == nil {
		c.gzip = gzip.NewWriter(&c.buf)
	} else {
		c.gzip.Reset(&c.buf)
	}
	if _, err := c.gzip.Write(src); err != nil {
		return nil, err
	}
	if err := c.gzip.Close(); err != nil {
		return nil, err
	}
	return append(dst, c.buf.Bytes()...), nil
}

func (c *Compressor) appendLZ4(dst, src []byte) ([]byte, error) {
	c.buf.Reset()
	if c.lz4 == nil {
		c.lz4 = lz4.NewWriter(&c.buf)
		if err := c.lz4.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
			return nil, err
		}
	} else {
		c.lz4.Reset(&c.buf)
	}
	if _, err := c.lz4.Write(src); err != nil {
		return nil, err
	}
	if err := c.lz4.Close(); err != nil {
		return nil, err
	}
	return append(dst, c.buf.Bytes()...), nil
}

func (c *Compressor) appendSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		block := src[:min(len(src), xerialBlockBytes)]
		c.one = snappy.Encode(c.one[:cap(c.one)], block)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.one)))
		dst = append(dst, c.one...)
		src = src[len(block):]
	}
	return dst
}
