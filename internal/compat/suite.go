package main

import "context"

func runSuite(ctx context.Context, shop workshop, broker *brokerProcess) report { return nil }
