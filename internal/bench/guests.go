package main

import (
	"context"
	"io"
)

func hostileGuests(ctx context.Context, w io.Writer) error { return nil }
