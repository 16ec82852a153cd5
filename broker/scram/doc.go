// Package scram is the broker's side of SCRAM (RFC 5802, RFC 7677): an exchange of four messages by which a client proves
// that it knows a password, and the broker that it knows the client, without the password ever being sent or stored.
//
//	client  n,,n=alice,r=CLIENTNONCE
//	server  r=CLIENTNONCE SERVERNONCE,s=SALT,i=8192
//	client  c=biws,r=CLIENTNONCE SERVERNONCE,p=PROOF
//	server  v=SIGNATURE
//
// What is stored of a password are two keys that the password gives and that do not give it (metadata.ScramCredential).
// A user who does not exist is led through the same exchange with a salt of the same make, and fails at its end like one
// with a wrong password, so that nobody learns who exists (X7).
//
// An Exchange holds bytes and no more: nonces come from its maker, nothing is read or written here. The protocol face
// runs one for each client that authenticates, on that client's goroutine.
package scram
