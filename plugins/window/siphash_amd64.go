package window

import "golang.org/x/sys/cpu"

// sipWide says that ids can be hashed side by side on this machine.
var sipWide = cpu.X86.HasAVX2

// sip8 is SipHash-2-4 with 128 bits of output over the first n words of eight messages.
//
//go:noescape
func sip8(k0, k1 uint64, b *sipBlock, n int)
