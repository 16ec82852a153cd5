#!/bin/bash
# kcat behind the driver protocol of package compat: driver.sh VERB KEY=VALUE..., events as JSON lines on stdout.
set -euo pipefail
verb=$1
shift
rack= ca= mechanism=
for argument in "$@"; do declare "$argument"; done

record='{"event":"record","partition":%p,"offset":%o,"key":"%k"}\n'
settings=(-X session.timeout.ms=6000 -X heartbeat.interval.ms=500 -X fetch.wait.max.ms=500 -X auto.commit.interval.ms=500)

security=()
protocol=plaintext
[ -z "$ca" ] || { protocol=ssl; security+=(-X "ssl.ca.location=$ca"); }
if [ -n "$mechanism" ]; then
  protocol=sasl_$protocol
  security+=(-X "sasl.mechanisms=$mechanism" -X "sasl.username=$user" -X "sasl.password=$password")
fi
security+=(-X "security.protocol=$protocol")
settings+=("${security[@]}")

# Unbuffered, kcat writes a line in pieces, and an assignment may land between them; whole goes line by line.
# Its redirection comes last, so that assignments keep the stdout that the driver was given.
whole() { sed -u ''; }

# Assignments are told on stderr, as "% Group g rebalanced (memberid m): assigned: t [0], t [1]".
assignments() {
  sed -u -n -E '/^% Group .* rebalanced .*assigned: /{
    s/^.*assigned: //; s/[^[]*\[([0-9]+)\]/,\1/g; s/^,?(.*)$/{"event":"assigned","partitions":[\1]}/; p; b
  }
  w /dev/stderr'
}

case $verb in
produce)
  for ((i = 0; i < count; i++)); do
    printf '%s-%05d:%s\n' "$codec" "$i" "a value that compresses well, well, well, well, well, well, well, well, well"
  done | kcat -P -b "$bootstrap" "${security[@]}" -t "$topic" -K: -z "$codec" -X linger.ms=50
  ;;
consume)
  [ -z "$rack" ] || settings+=(-X "client.rack=$rack")
  exec kcat -b "$bootstrap" "${settings[@]}" -X auto.offset.reset=earliest -u -f "$record" -G "$group" "$topic" 2> >(assignments) > >(whole)
  ;;
read)
  kcat -C -q -b "$bootstrap" "${settings[@]}" -t "$topic" -p "$partition" -o "$offset" -c "$count" -f "$record"
  ;;
*)
  echo "kcat has no $verb" >&2
  exit 2
  ;;
esac
