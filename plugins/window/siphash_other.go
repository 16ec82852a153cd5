//go:build !amd64

package window

// sipWide says that ids can be hashed side by side on this machine.
const sipWide = false

func sip8(k0, k1 uint64, b *sipBlock, n int) { panic("one id is hashed at a time here") }
