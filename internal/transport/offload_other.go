//go:build !linux

package transport

import "net"

// offload returns the socket as it is: only Linux joins packets for a receiver.
func offload(socket net.PacketConn) net.PacketConn { return socket }
