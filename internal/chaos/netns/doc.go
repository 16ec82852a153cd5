// Package netns gives a run hosts of its own: network namespaces that are joined by a router in this process, which can
// lose, delay, reorder, double, damage and slow down what passes. It uses the kernel's TUN devices and nothing else: no
// veth, bridge, nft or netem, of which many a kernel lacks one, and no program.
//
//	host 1 (namespace) ── tun ──┐
//	host 2 (namespace) ── tun ──┤  Router: a Link for each direction between two hosts
//	host 3 (namespace) ── tun ──┤
//	this process       ── tun ──┘
//
// Enter starts the calling program again inside a sandbox: its own namespaces for processes, mounts and the network, so
// that nothing of a run outlives it. When the sandbox's first process ends, however it ends, the kernel kills every
// process in it, and the namespaces, the devices and the mounts go with them. It needs root, or user namespaces and a
// /dev/net/tun that the user may open; Why says what is missing.
//
// A Disk is a file system of its own whose power can be cut; it takes loop devices and mkfs.ext4.
//
// A host is a thread of this process that lives in the host's namespace; what Host.Do starts lives there too.
package netns
