// Package builtin holds the plugins that come with every broker: dedup-key, dedup-header, dedup-json, filter-json and
// redact. They are written in C (folder src, beside the guest SDK in plugins/guest/c), because a module of a few
// kilobytes and less than a megabyte of memory is restored in microseconds. The modules are checked in with their
// digests; build.sh builds them again with a pinned compiler and compares.
//
// A built-in is a plugin like any other: it is admitted, metered, stored and bound by version. Nothing here is parsed or
// compiled before it is asked for.
//
// A verdict's code counts what passed for want of something to judge: 1 = no key or no such field
// or header, 2 = no JSON.
package builtin
